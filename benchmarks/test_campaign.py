"""A campaign with 10,000 recorded experiments: reading it, and what one more costs beside its trial.

The trainer is the PyTorch reference, so that parsing, fingerprints and git carry a real text; its trials do nothing.
Status is to take less than 1 s, an experiment beside its trial less than 0.5 s, a proposal less than 0.2 s.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from campaigns import YARDSTICK, ScriptedEngine, a_campaign, a_trial

import backends
from core.agents.base import Agent, History
from core.agents.search.agent import SearchAgent
from core.campaign.campaign import Campaign
from core.events import Repeat
from core.records import Experiment, Proposal
from core.store.ledger import Ledger
from core.store.repository import Repo
from core.trainer.constants import read_constants

pytestmark = pytest.mark.benchmark(group="experiment")

RECORDED = 10_000
KEPT_EVERY = 50
REFERENCE = backends.trainer_path("torch").read_text(encoding="utf-8") + '\nSCORE = 2.0\nOUTCOME = "scored"\n'


def text(number: int) -> str:
    """Experiment `number`'s trainer: every fiftieth a little better, the others worse."""
    score = 2.0 - number / RECORDED / 2 if number % KEPT_EVERY == 0 else 3.0 + number / RECORDED
    return REFERENCE.replace("SCORE = 2.0", f"SCORE = {score!r}")


class Counting(Agent):
    """Proposes a new trainer each time, for next to nothing."""

    name = "counting"

    def propose(self, history: History) -> Proposal:
        return Proposal(text=text(len(history)), hypothesis=f"idea {len(history)}", agent=self.name)

    def repeated(self, repeat: Repeat) -> None:
        raise AssertionError("every text is new")


def import_commits(root: Path, base: str, texts: list[str]) -> list[str]:
    """One commit a text under refs/experiments, by one `git fast-import`: their ids."""
    stream = bytearray()
    parent = base.encode()
    for number, content in enumerate(texts, 1):
        message = f"idea {number}\n\nExperiment: {number}\nAgent: counting\n".encode()
        data = content.encode()
        stream += b"commit refs/experiments/%d\nmark :%d\n" % (number, number)
        stream += b"committer A <a@example.org> %d +0000\n" % (1_700_000_000 + number)
        stream += b"data %d\n%sfrom %s\nM 100644 inline train.py\ndata %d\n" % (
            len(message),
            message,
            parent,
            len(data),
        )
        stream += data + b"\n"
        if number % KEPT_EVERY == 0:
            parent = b":%d" % number
    marks = root / ".git" / "marks"
    subprocess.run(
        ["git", "fast-import", "--quiet", f"--export-marks={marks}"], cwd=root, input=bytes(stream), check=True
    )
    by_mark = dict(line.split() for line in marks.read_text().splitlines())
    marks.unlink()
    return [by_mark[f":{number}"] for number in range(1, len(texts) + 1)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What 10,000 experiments leave: refs, rows of real size, and packs as the campaign itself makes them."""
    root = tmp_path_factory.mktemp("large") / "campaign"
    with a_campaign(root, trainer=REFERENCE) as campaign:
        campaign.run(Counting(), experiments=0)
        branch, champion = campaign.branch, campaign.champion
    commits = import_commits(root, champion.commit, [text(number) for number in range(1, RECORDED + 1)])
    ledger = Ledger.open(root / ".git" / "autoresearch" / "ledger.db")
    # 20,000 durable writes one by one would take minutes.
    ledger._connection.executescript("PRAGMA synchronous = OFF; PRAGMA journal_mode = MEMORY")
    best = champion
    constants = read_constants(REFERENCE)
    for number, commit in enumerate(commits, 1):
        kept = number % KEPT_EVERY == 0
        score = 2.0 - number / RECORDED / 2 if kept else 3.0 + number / RECORDED
        trial = a_trial(val_bpb=score, yardstick=YARDSTICK)
        ledger.record_trial(number, 0, commit, trial)
        constants["MATRIX_LR"] = 0.005 + 0.19 * number / RECORDED
        experiment = Experiment(
            number=number, commit=commit, parent=best.commit, hypothesis=f"idea {number}", agent="counting",
            verdict="keep" if kept else "discard", reason="as the script says", val_bpb=score,
            champion_bpb=best.val_bpb, spread=0.01, fingerprint=f"{number:064x}", wall_seconds=310.0,
            train_seconds=300.0, ended="2026-01-01T00:00:00+00:00", trials=(trial,),
        )  # fmt: skip
        ledger.record_experiment(experiment, constants)
        best = experiment if kept else best
    ledger._connection.execute("PRAGMA journal_mode = DELETE")
    ledger.close()
    repo = Repo(root, branch)
    repo.advance(champion.commit, best.commit)
    repo.tidy()
    repo.close()
    return root


@pytest.fixture
def campaign(root: Path) -> Iterator[Campaign]:
    with Campaign.open(root, engine=ScriptedEngine()) as campaign:
        yield campaign


def test_status(benchmark, root: Path) -> None:  # type: ignore[no-untyped-def]
    def read() -> int:
        with Campaign.open(root) as campaign:
            return campaign.status().experiments

    assert benchmark(read) >= RECORDED


def test_status_in_a_new_process(benchmark, root: Path) -> None:  # type: ignore[no-untyped-def]
    command = [sys.executable, "-m", "core.cli", "status", "--json", "--dir", str(root)]

    def run() -> str:
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]).stdout

    status = json.loads(benchmark.pedantic(run, rounds=5, warmup_rounds=1))
    assert status["experiments"] >= RECORDED


def test_all_records(benchmark, campaign: Campaign) -> None:  # type: ignore[no-untyped-def]
    assert len(benchmark.pedantic(campaign.experiments, rounds=3)) > RECORDED


def test_one_experiment_beside_its_trial(benchmark, campaign: Campaign) -> None:  # type: ignore[no-untyped-def]
    agent = Counting()
    before = campaign.status().experiments
    # Each round opens the campaign for writing too: lock, reconciliation, a check of the whole ledger.
    benchmark.pedantic(lambda: campaign.run(agent, experiments=1), rounds=20, warmup_rounds=1)
    assert campaign.status().experiments == before + 21


def test_300_experiments_in_a_row(benchmark, campaign: Campaign) -> None:  # type: ignore[no-untyped-def]
    first = campaign.status().experiments + 1
    benchmark.pedantic(
        lambda: campaign.run(Counting(), experiments=300), rounds=1
    )  # packs the repository once or twice
    seconds = sorted(e.wall_seconds for e in campaign.experiments(first, trials=False))
    benchmark.extra_info["median_of_one"] = seconds[len(seconds) // 2]
    benchmark.extra_info["slowest_of_one"] = seconds[-1]


def test_a_proposal_of_the_search(benchmark, campaign: Campaign) -> None:  # type: ignore[no-untyped-def]
    agent = SearchAgent()

    def propose() -> Proposal | None:
        return agent.propose(campaign)

    assert benchmark(propose) is not None
