"""What agents read of an experiment: the belief with its interval, the probability, the raw effect."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from histories import MemoryHistory
from scripted_model import PlainContext, ScriptedModel, use
from view_records import an_experiment

import presets
from core.agents.api.agent import ApiAgent
from core.agents.base import Unavailable
from core.agents.command import prompt
from core.agents.command.history_files import files
from core.agents.plateau import near_misses
from core.agents.record_text import heading, line, measured, score
from core.records import Experiment, Proposal, Trial
from core.store.program import Limits, Program

BELIEVED = an_experiment(
    7, "keep", val_bpb=1.80312, champion_bpb=1.80834, deviation=0.0021, champion_deviation=0.0015, probability=0.974,
    effect=0.008, effect_error=0.006,
)  # fmt: skip
LUCKY = 1.7777  # a raw score that only trials have


def test_a_line_has_belief_interval_probability_and_what_was_measured() -> None:
    assert line(BELIEVED) == (
        "#7 keep 1.8031 +- 0.0041 gain +0.0052 (better with 97 %, measured +0.0080 +- 0.0118) [test] idea 7"
    )
    assert score(BELIEVED) == (
        "experiment 7: keep, val_bpb 1.8031 +- 0.0041, gain +0.0052 over the champion of its time "
        "(better with 97 %, measured +0.0080 +- 0.0118)"
    )
    assert heading(BELIEVED).startswith("Experiment 7: keep, val_bpb 1.8031 +- 0.0041, gain")


def test_a_policy_without_beliefs_shows_plain_scores() -> None:
    plain = an_experiment(3, "discard", val_bpb=1.9, champion_bpb=1.8)
    assert line(plain) == "#3 discard 1.9000 gain -0.1000 [test] idea 3" and measured(plain) == ""


def test_a_stopped_one_has_no_score() -> None:
    assert line(an_experiment(4, "stopped", champion_bpb=1.8, reason="12 %")) == "#4 stopped [test] idea 4"


class _Believing(MemoryHistory):
    """Its experiments have beliefs, and trials whose raw scores say better things."""

    def record(self, proposal: Proposal) -> Experiment:
        found = super().record(proposal)
        trial: Trial = replace(BELIEVED.trials[0], val_bpb=LUCKY)
        self.found[-1] = replace(
            found, deviation=0.002, champion_deviation=0.0011, probability=0.4, effect=0.009, effect_error=0.004,
            champion_bpb=None if found.number == 0 else 1.6543, trials=(trial,),
        )  # fmt: skip
        return self.found[-1]

    reported = False  # whether the newest belief about its champion is known

    @property
    def champion(self) -> Experiment:
        return replace(super().champion, val_bpb=1.6543, deviation=0.0011) if self.reported else super().champion

    def folder(self, number: int) -> Path:
        return Path("none")


@pytest.fixture
def history() -> _Believing:
    program = Program(prose="Lower it.", limits=Limits(memory_mb=12_288.0, bpb_per_doubled_speed=0.01))
    found = _Believing("RATE = 0.3\n", lambda values: 1.3 + float(str(values["RATE"])), presets.load("numpy"), program)
    for rate in (0.2, 0.25):
        found.record(Proposal(text=f"RATE = {rate}\n", hypothesis=f"rate {rate}", agent="search"))
    return found


def test_no_agent_reads_a_single_lucky_number(history: _Believing, tmp_path: Path) -> None:
    model = ScriptedModel([[use("list_experiments"), use("read_experiment", number=1)], [], [], []])
    agent = ApiAgent(lambda context: model, model="m")
    agent.begin(PlainContext(tmp_path))
    history.reported = True
    with pytest.raises(Unavailable):
        agent.propose(history)
    standing, situation = (block["text"] for block in model.requests[0].messages[0]["content"])
    results = " ".join(str(result["content"]) for result in model.results())
    command = prompt.task(history, 20, "./check", 5, "")
    written = "\n".join(files(history).values())
    for text in (situation, results, command, written):
        assert "1.5000 +- 0.0039" in text and f"{LUCKY}" not in text
        assert "better with 40 %, measured +0.0090 +- 0.0078" in text
    assert "experiment 1 with val_bpb 1.6543 +- 0.0022" in situation
    assert "champion: experiment 1, val_bpb 1.6543 +- 0.0022; the baseline: 1.6000 +- 0.0039" in command
    for held in ("at most 12,288 MB of memory", "a line of code less is worth 0.00005 bpb", "twice the tokens/s are"):
        assert held in standing and held in command


def test_near_misses_are_within_the_deviation_of_their_belief(history: _Believing) -> None:
    history.found[1:] = [
        replace(history.found[2], number=number, parent="0", val_bpb=1.6543 + worse, champion_bpb=1.6543)
        for number, worse in enumerate((0.0019, 0.0021, 0.0), 1)
    ]
    assert [one.number for one in near_misses(history, 5)] == [3, 1]
