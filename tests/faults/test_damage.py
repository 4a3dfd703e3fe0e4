"""What a power cut leaves of a campaign's files: put right and gone on with, or told with its mend and left alone."""

from __future__ import annotations

import random
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from campaigns import ScriptedAgent, ScriptedEngine, a_campaign, events_of, facts_of, trainer

from core import events
from core.campaign.campaign import Campaign
from core.records import UserError
from core.trial.spec import TrialSpec

TEXTS = [trainer(1.9), trainer(1.8), trainer(1.95), trainer(1.7)]
EXPECTED = ["keep", "keep", "keep", "discard", "keep"]


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Experiments 0 to 3: a baseline, two that were kept and one that was not."""
    root = tmp_path_factory.mktemp("grown") / "c"
    with a_campaign(root) as campaign:
        campaign.run(ScriptedAgent(TEXTS[:3]))
    return root


@pytest.fixture
def root(grown: Path, tmp_path: Path) -> Path:
    return shutil.copytree(grown, tmp_path / "c")


def goes_on(root: Path) -> list[str]:
    """Runs it to the end, as it would have ended undisturbed; the notices on the way."""
    seen: list[events.Event] = []
    with Campaign.open(root, engine=ScriptedEngine()) as campaign:
        campaign.run(ScriptedAgent(TEXTS), on_event=seen.append)
        assert [fact[3] for fact in facts_of(campaign)] == EXPECTED
        assert [fact[10] for fact in facts_of(campaign)] == [trainer(2.0), *TEXTS]
        commits = [e.commit for e in campaign.experiments()]
    assert git(root, "rev-parse", "HEAD", "refs/heads/autoresearch/t") == f"{commits[4]}\n{commits[4]}"
    for number, commit in enumerate(commits):
        assert git(root, "rev-parse", f"refs/experiments/{number}") == commit
    assert git(root, "status", "--porcelain") == ""
    assert git(root, "fsck", "--strict") == ""
    assert (root / "train.py").read_text() == TEXTS[3]
    return [event.text for event in events_of(events.Notice, seen)]


def empty(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:17])


def loose(root: Path, revision: str) -> Path:
    name = git(root, "rev-parse", revision)
    return root / ".git" / "objects" / name[:2] / name[2:]


def everything(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("HEAD", "HEAD was empty or cut short"),
        ("refs/heads/autoresearch/t", "the branch autoresearch/t was empty"),
        ("refs/experiments/3", "put back from the ledger: refs/experiments/3"),
        ("refs/experiments/1", "put back from the ledger: refs/experiments/1"),
        ("index", "git's index was missing or cut short"),
    ],
)
@pytest.mark.parametrize("damage", [empty, cut])
def test_a_file_of_git_is_put_right(root: Path, file: str, told: str, damage: Callable[[Path], None]) -> None:
    damage(root / ".git" / file)
    notices = goes_on(root)
    assert told in notices[0]
    assert goes_on(root) == []


def test_refs_that_are_gone_come_back_from_the_ledger(root: Path) -> None:
    shutil.rmtree(root / ".git" / "refs" / "experiments")
    (root / ".git" / "index").unlink()
    assert "refs/experiments/0, 1, 2, 3" in goes_on(root)[0]


@pytest.mark.parametrize("rest", [0, 90])
def test_packed_refs_cut_short_are_told_with_their_mend(root: Path, rest: int) -> None:
    git(root, "pack-refs", "--all")
    packed = root / ".git" / "packed-refs"
    packed.write_bytes(packed.read_bytes()[:rest])
    with pytest.raises(UserError) as told:
        goes_on(root)
    if rest:
        assert "delete what is cut short there (.git/packed-refs: its last line)" in str(told.value)
        packed.write_text("".join(packed.read_text().splitlines(keepends=True)[:-1]))
        with pytest.raises(UserError) as told:
            goes_on(root)
    git(root, *str(told.value).split("fix it with: git ")[1].split())
    goes_on(root)


@pytest.mark.parametrize("of", ["{champion}", "{champion}:train.py", "{champion}^{{tree}}"])
def test_a_champion_that_git_cannot_read_is_told(root: Path, of: str) -> None:
    with Campaign.open(root) as campaign:
        champion = campaign.champion.commit
    damaged = loose(root, of.format(champion=champion))
    whole = damaged.read_bytes()
    empty(damaged)
    for _ in range(2):
        with pytest.raises(UserError, match=rf"(?s)commit {champion}.*restore .git/objects from a copy"):
            goes_on(root)
    damaged.write_bytes(whole)
    goes_on(root)


def test_a_discarded_experiment_that_git_cannot_read_stops_nothing(root: Path) -> None:
    empty(loose(root, "refs/experiments/3"))
    seen: list[events.Event] = []
    with Campaign.open(root, engine=ScriptedEngine()) as campaign:
        campaign.run(ScriptedAgent(TEXTS), on_event=seen.append)
        assert campaign.champion.val_bpb == 1.7
        with pytest.raises(UserError, match="no readable train.py"):
            campaign.trainer_text(campaign.experiment(3).commit)


@pytest.mark.parametrize("size", [0, 50, 4096, 9000, 20_000])
def test_a_ledger_that_is_cut_short_is_refused_and_nothing_written(root: Path, size: int) -> None:
    ledger = root / ".git" / "autoresearch" / "ledger.db"
    whole = ledger.read_bytes()
    assert len(whole) > 24_000
    ledger.write_bytes(whole[:size])
    before = everything(root)
    with pytest.raises(UserError, match=r"ledger\.db.* is damaged: .*restore it from a copy of the campaign's folder"):
        goes_on(root)
    assert everything(root) == before
    ledger.write_bytes(whole)
    goes_on(root)


def test_a_ledger_that_is_gone_is_no_new_campaign(root: Path) -> None:
    (root / ".git" / "autoresearch" / "ledger.db").unlink()
    with pytest.raises(UserError, match=r"ledger\.db is missing; restore it from a copy"):
        Campaign.open(root)


def half_written(root: Path, torn: bool) -> None:
    """The ledger as a power cut leaves it in the middle of a transaction: pages written, the journal that undoes them.

    SQLite itself makes it: a transaction larger than its cache spills into the file, which is copied at that moment.
    `torn`: of every page that the journal can undo, only half was written.
    """
    ledger = root / ".git" / "autoresearch" / "ledger.db"
    before = ledger.read_bytes()
    live = ledger.with_name("live.db")
    shutil.copy(ledger, live)
    connection = sqlite3.connect(live, isolation_level=None)
    connection.execute("PRAGMA cache_size = 1")
    connection.execute("BEGIN")
    for place in range(40):
        connection.execute("INSERT INTO trials VALUES (4, ?, 'c', 1, 'scored', 1.0, 1.0, ?)", (place, "x" * 3000))
    shutil.copy(live, ledger)
    journal = live.with_name("live.db-journal").read_bytes()
    connection.rollback()
    connection.close()
    live.unlink()
    assert ledger.read_bytes() != before
    assert journal[:8] == bytes.fromhex("d9d505f920a163d7")  # a journal that was made durable
    (ledger.with_name("ledger.db-journal")).write_bytes(journal)
    if torn:
        # https://www.sqlite.org/fileformat2.html#the_rollback_journal
        count, sector, size = (int.from_bytes(journal[at : at + 4]) for at in (8, 20, 24))
        pages = [int.from_bytes(journal[at : at + 4]) for at in range(sector, sector + count * (size + 8), size + 8)]
        assert len(pages) >= 1
        with open(ledger, "r+b") as file:
            for page in pages:
                file.seek((page - 1) * size + size // 2)
                file.write(random.Random(page).randbytes(size // 2))


@pytest.mark.parametrize("torn", [False, True])
def test_a_transaction_that_was_cut_off_is_taken_back(root: Path, torn: bool) -> None:
    half_written(root, torn)
    assert goes_on(root) == []
    assert not (root / ".git" / "autoresearch" / "ledger.db-journal").exists()


def test_a_ledger_of_another_version_stays_as_it_is_even_beside_a_journal(root: Path) -> None:
    ledger = root / ".git" / "autoresearch" / "ledger.db"
    with sqlite3.connect(ledger) as connection:
        connection.execute("PRAGMA user_version = 4")
    connection.close()
    half_written(root, torn=False)
    before = everything(root)
    for act in (
        lambda c: c.status(),
        lambda c: c.run(ScriptedAgent([])),
        lambda c: c.try_worktree("x"),
    ):
        with pytest.raises(UserError, match=r"expected a ledger of version .*found version 4; it was left untouched"):
            act(Campaign.open(root, engine=ScriptedEngine()))
    assert everything(root) == before


def test_a_preset_cut_short_is_told(root: Path) -> None:
    cut(root / ".git" / "autoresearch" / "preset.toml")
    with pytest.raises(UserError, match=r"preset\.toml was changed after the campaign began.*restore it"):
        Campaign.open(root)


def test_a_trial_cut_short_leaves_no_half_of_it(root: Path) -> None:
    """A candidate is pinned, its trial's folder half written, a row of its own not there yet."""

    def fail(spec: TrialSpec) -> None:
        raise OSError("the power goes")

    with Campaign.open(root, engine=ScriptedEngine(during=fail)) as campaign:
        with pytest.raises(OSError, match="the power goes"):
            campaign.run(ScriptedAgent(TEXTS))
        half = campaign.folder(4) / "0"
        assert half.exists()
        (half / "curve.jsonl").write_bytes(b'{"step": 1, "sec')
        (half / "weights.safetensors.partial").write_bytes(b"half")
    goes_on(root)
    assert not (half / "weights.safetensors.partial").exists()
