"""A thinker and the search on one history: whose turn it is, and what happens while the thinker is away."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from campaigns import PRESET
from histories import MemoryHistory

from core.agents.base import Agent, AgentContext, CheckResult, History, Unavailable
from core.agents.hybrid import Hybrid
from core.agents.search.agent import SearchAgent
from core.events import Event, Notice, Repeat
from core.records import Experiment, Proposal
from core.trainer.constants import write_constants

TEXT = "RATE = 0.1  # tune: log 0.01 .. 1\nWIDTH = 64  # tune: one of 32, 64, 128\nLAYERS = 2\n"
FIXED = "LAYERS = 2\n"


def measure(constants: Any) -> float | None:
    """Lower with more layers, and with a rate near 0.3; four layers crash."""
    if constants["LAYERS"] == 4:
        return None
    rate = constants.get("RATE", 0.1)
    return 2.0 - 0.1 * constants["LAYERS"] + 0.01 * abs(math.log(rate / 0.3))


class FakeContext:
    """A context with a clock that only sleeping moves."""

    def __init__(self, seconds: float = math.inf) -> None:
        self.now = 0.0
        self.seconds = seconds
        self.root = self.state = Path()
        self.told: list[Event] = []

    def tell(self, event: Event) -> None:
        self.told.append(event)

    def check(self, text: str) -> CheckResult:
        raise AssertionError("nobody here checks")

    def seconds_left(self) -> float:
        return self.seconds - self.now

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    @property
    def notices(self) -> list[str]:
        return [event.text for event in self.told if isinstance(event, Notice)]


class Thinker(Agent):
    """Gives the next of its answers: a number of layers, an error to raise, or None."""

    name = "thinker"

    def __init__(self, answers: Sequence[int | Exception | None]) -> None:
        self.answers = list(answers)
        self.seen: list[Experiment] = []
        self.repeats: list[Repeat] = []
        self.open = 0

    def begin(self, context: AgentContext) -> None:
        self.open += 1

    def propose(self, history: History) -> Proposal | None:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            return None
        text = write_constants(history.champion_text, {"LAYERS": answer})
        return Proposal(text=text, hypothesis=f"{answer} layers", agent=self.name)

    def observe(self, experiment: Experiment) -> None:
        self.seen.append(experiment)

    def repeated(self, repeat: Repeat) -> None:
        self.repeats.append(repeat)

    def end(self) -> None:
        self.open -= 1


def made(thinker: Agent, context: FakeContext, **options: Any) -> Hybrid:
    agent = Hybrid(thinker, SearchAgent(seed=1), clock=context.clock, sleep=context.sleep, **options)
    agent.begin(context)
    return agent


def who(history: MemoryHistory) -> str:
    """T for each experiment of the thinker, s for each of the search."""
    return "".join("T" if one.agent == "thinker" else "s" for one in history.found[1:])


def test_the_search_tunes_longer_around_what_was_kept() -> None:
    history, context = MemoryHistory(TEXT, measure, PRESET), FakeContext()
    agent = made(Thinker([3, 1, 4, 5]), context)
    history.run(agent, 10)
    assert [one.verdict for one in history.found if one.agent == "thinker"] == ["keep", "discard", "crash", "keep"]
    assert who(history) == "TsssTsTsTs"


def test_whose_turn_it_is_survives_the_process() -> None:
    history, context = MemoryHistory(TEXT, measure, PRESET), FakeContext()
    thinker = Thinker([3, 1, 4, 5])
    for _ in range(10):
        history.run(made(thinker, context), 1)
    assert who(history) == "TsssTsTsTs"


def test_the_search_stands_in_while_the_thinker_is_away() -> None:
    history, context = MemoryHistory(TEXT, measure, PRESET), FakeContext()
    agent = made(Thinker([3, Unavailable("overloaded", 60.0), Unavailable("no network", 120.0), 5]), context)
    for _ in range(14):
        history.run(agent, 1)
        context.now += 20
    # The first three are its turns; the thinker is asked after 80 s, 140 s (60 later) and 260 s (120 later).
    assert who(history) == "T" + 12 * "s" + "T"
    assert context.notices == [
        "thinker is away (overloaded): asked again in 1m 00s, the search stands in",
        "thinker is away (no network): asked again in 2m 00s, the search stands in",
        "thinker is back after 3m 00s",
    ]


def test_it_waits_where_the_search_has_nothing_to_tune() -> None:
    history, context = MemoryHistory(FIXED, measure, PRESET), FakeContext()
    agent = made(Thinker([Unavailable("overloaded", 60.0), 3]), context)
    proposal = agent.propose(history)
    assert proposal is not None and proposal.agent == "thinker"
    assert context.now == pytest.approx(60)
    assert sum("nothing to change" in notice for notice in context.notices) == 1


def test_it_waits_no_longer_than_the_run_lasts() -> None:
    history, context = MemoryHistory(FIXED, measure, PRESET), FakeContext(seconds=10)
    assert made(Thinker([Unavailable("overloaded", 600.0)]), context).propose(history) is None
    assert context.now == pytest.approx(10)


def test_the_search_goes_on_alone_when_the_thinker_has_nothing_more() -> None:
    history, context = MemoryHistory(TEXT, measure, PRESET), FakeContext()
    history.run(made(Thinker([3, None]), context), 8)
    assert who(history) == "Tsssssss"
    assert context.notices == ["thinker has nothing more to propose: the search goes on alone"]


def test_as_a_stand_in_the_search_gets_no_turn_of_its_own_and_ends_with_the_thinker() -> None:
    history, context = MemoryHistory(TEXT, measure, PRESET), FakeContext()
    agent = made(
        Thinker([3, 1, Unavailable("overloaded", 5.0), 5, None]), context, after_keep=0, after_rest=0, alone=False
    )
    history.run(agent, 3)
    context.now += 5
    history.run(agent, 9)
    assert who(history) == "TTsT"


def test_each_hears_of_all_verdicts_and_a_repeat_goes_to_who_proposed_it() -> None:
    history, context = MemoryHistory(TEXT, measure, PRESET), FakeContext()
    thinker = Thinker([3, 3])
    agent = made(thinker, context)
    history.run(agent, 4)
    assert [one.agent for one in thinker.seen] == ["thinker", "search", "search", "search"]
    proposal = agent.propose(history)
    assert proposal is not None
    agent.repeated(Repeat(proposal.hypothesis, proposal.agent, history.found[1]))
    assert [repeat.hypothesis for repeat in thinker.repeats] == ["3 layers"]
    agent.end()
    assert thinker.open == 0
