"""What a model is told first stays small and quick in a campaign of 10,000 experiments, read from a real ledger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from campaigns import a_campaign, trainer
from scripted_model import PlainContext, ScriptedModel, use

from core.agents.api.agent import ApiAgent
from core.agents.base import Agent
from core.campaign.campaign import Campaign
from core.records import Experiment
from core.store.ledger import Ledger

RECORDED = 10_000
REAL = (5_000, 9_001)
LONG = "with many words " * 1_000  # a hypothesis may be 20,000 characters long


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    """Rows of 10,000 experiments, every thousandth kept; only those that are read have a commit."""
    root = tmp_path_factory.mktemp("large") / "c"
    with a_campaign(root) as campaign:
        campaign.run(Agent(), experiments=0)
        best = base = campaign.champion
        real = {number: campaign.repo.candidate(base.commit, trainer(1.9, note=f"{number}"), "m") for number in REAL}
    ledger = Ledger.open(root / ".git" / "autoresearch" / "ledger.db")
    ledger._connection.executescript("PRAGMA synchronous = OFF; PRAGMA journal_mode = MEMORY")  # quick, not durable
    for number in range(1, RECORDED + 1):
        kept = number % 1000 == 1
        crashed = number % 7 == 0 and not kept
        score = None if crashed else 2.0 - number / 1e5 if kept else 2.5 + number / 1e5
        experiment = Experiment(
            number=number, commit=real.get(number, f"{number:040x}"), parent=base.commit,
                hypothesis=f"idea {number} {LONG if number % 1000 < 2 or number > 9_950 else ''}",
            agent="api:m" if number % 3 else "search", verdict="keep" if kept else "crash" if crashed else "discard",
            reason="ValueError: ORDERS", val_bpb=score, champion_bpb=best.val_bpb, spread=0.01,
            fingerprint=f"{number:064x}", wall_seconds=1.0, train_seconds=1.0, ended="", trials=(),
        )  # fmt: skip
        ledger.record_experiment(experiment, {"SCORE": 2.0, "OUTCOME": "scored"})
        best = experiment if kept else best
    ledger.close()
    with Campaign.open(root) as campaign:
        yield campaign


def test_the_brief_is_bounded_and_the_rest_readable_by_tool(campaign: Campaign, tmp_path: Path) -> None:
    (tmp_path / "lessons.md").write_text("- a lesson of some length\n" * 5_000)
    reads = [
        use("list_experiments", first=10, last=9_000, verdict="crash", count=100),
        use("list_experiments", sort="score", count=3),
        use("read_experiment", number=5_000),
    ]
    model = ScriptedModel([reads, [use("write_trainer", text=trainer(1.0)), use("propose", hypothesis="lower")]])
    agent = ApiAgent(lambda context: model, model="m")
    agent.begin(PlainContext(tmp_path))
    assert agent.propose(campaign) is not None

    texts = [block["text"] for block in model.requests[0].messages[0]["content"]]
    assert sum(map(len, texts)) < 20_000
    assert "becomes experiment 10001. The champion is experiment 9001 with val_bpb 1.9100" in texts[1]
    crashes = len([n for n in range(1, RECORDED + 1) if n % 7 == 0 and n % 1000 != 1])
    assert f"11 keep, {RECORDED - 10 - crashes} discard, 0 stopped, {crashes} crash, 0 invalid" in texts[1]
    assert "9986 older experiments are not listed" in texts[1]
    assert "(ValueError)" in texts[1] and "ORDERS" not in texts[1]
    assert "in a row were discarded since the champion, experiment 9001" in texts[1]

    crashed, best, one = (str(result["content"]) for result in model.results())
    assert crashed.startswith("100 of ") and len(crashed) < 45_000 and "#8995 crash" in crashed
    assert [line.split()[0] for line in best.splitlines()[2:5]] == ["#9001", "#8001", "#7001"]
    assert one.startswith("Experiment 5000: discard, val_bpb 2.5500") and len(one) < 30_000
