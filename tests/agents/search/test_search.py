"""The search agent on histories in memory, where a trial is a function of the constants."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from campaigns import PRESET
from histories import MemoryHistory

from benchmarks.search.opponents import Near, Uniform
from core.agents import registry
from core.agents.base import Agent
from core.agents.search import points
from core.agents.search.agent import SearchAgent
from core.records import Constant, Proposal, UserError
from core.store.program import Program
from core.trainer.constants import read_constants, read_tunables, write_constants
from core.trainer.literals import literal

TEXT = """\
MATRIX_LR = 0.04  # tune: log 0.005 .. 0.2
EMBEDDING_LR = 0.6  # tune: log 0.05 .. 3
WEIGHT_DECAY = 0.1  # tune: linear 0 .. 0.5
WARMDOWN_RATIO = 0.5  # tune: linear 0 .. 0.9
FINAL_LR_FRAC = 0.0  # tune: linear 0 .. 0.3
DEPTH = 4  # tune: int 2 .. 8
ROWS = 512  # tune: log int 64 .. 4096
HEAD_DIM = 64  # tune: one of 32, 64, 128
WINDOW_PATTERN = "L"  # tune: one of "L", "SL", "SSSL"
ADAM_BETAS = (0.8, 0.95)  # tune: one of (0.8, 0.95), (0.9, 0.95)
"""
SPACES = read_tunables(TEXT)


def seeds(few: int, many: int) -> pytest.MarkDecorator:
    """Statistics: over few seeds in the fast suite, over many in the long one."""
    return pytest.mark.parametrize("seeds", [few, pytest.param(many, marks=pytest.mark.long)])


def place(name: str, value: Constant) -> float:
    """Where a value lies in its range, 0 to 1."""
    tunable = SPACES[name]
    if tunable.choices is not None:
        return tunable.choices.index(value) / (len(tunable.choices) - 1)
    assert tunable.low is not None and tunable.high is not None and isinstance(value, (int, float))
    scale = math.log if tunable.log else float
    return (scale(value) - scale(tunable.low)) / (scale(tunable.high) - scale(tunable.low))


class Bowl:
    """A smooth bowl over the constants with its floor at a random place; high learning rates crash."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._floor = {name: rng.uniform(0.1, 0.9) for name in SPACES}
        self._weight = {name: rng.uniform(0.03, 0.3) for name in SPACES}

    def __call__(self, constants: Mapping[str, Constant]) -> float | None:
        if place("MATRIX_LR", constants["MATRIX_LR"]) > 0.95:
            return None
        return 1.5 + sum(
            self._weight[name] * (place(name, constants[name]) - self._floor[name]) ** 2 for name in SPACES
        )


def test_it_changes_a_few_constants_of_the_champion_within_their_ranges() -> None:
    history = MemoryHistory(TEXT, Bowl(0), PRESET)
    agent = SearchAgent(seed=3)
    sizes = []
    for _ in range(80):
        before = read_constants(history.champion_text)
        proposal = agent.propose(history)
        assert proposal is not None
        after = read_constants(proposal.text)
        changed = [name for name in SPACES if before[name] != after[name]]
        sizes.append(len(changed))
        assert proposal.agent == "search"
        assert proposal.hypothesis == ", ".join(
            f"{name} {literal(before[name])} -> {literal(after[name])}" for name in changed
        )
        for name in SPACES:
            assert 0 <= place(name, after[name]) <= 1
            assert type(after[name]) is type(before[name])
        # nothing but those literals
        assert write_constants(proposal.text, {name: before[name] for name in changed}) == history.champion_text
        history.record(proposal)
    assert {1, 2, 3} <= set(sizes) <= {1, 2, 3, 4, 5, 6}  # more than three: two near misses at once
    assert sum(size <= 3 for size in sizes) >= 60
    assert len({e.fingerprint for e in history.found}) == 81


@seeds(3, 10)
def test_it_finds_more_than_random_search_in_thirty_trials(seeds: int) -> None:
    found: dict[str, list[float]] = {"search": [], "random": []}
    for seed in range(seeds):
        competitors: tuple[Agent, ...] = (SearchAgent(seed=seed), Uniform(seed))
        for agent in competitors:
            history = MemoryHistory(TEXT, Bowl(seed), PRESET)
            history.run(agent, 30)
            found[agent.name].append(history.champion.val_bpb or 0)
    assert sum(a < b for a, b in zip(found["search"], found["random"], strict=True)) >= 0.8 * seeds
    assert statistics.mean(found["search"]) - 1.5 < 0.7 * (statistics.mean(found["random"]) - 1.5)


def test_another_process_goes_on_with_the_same_proposals() -> None:
    whole, parts = (MemoryHistory(TEXT, Bowl(1), PRESET) for _ in range(2))
    whole.run(SearchAgent(seed=5), 25)
    for _ in range(25):
        parts.run(SearchAgent(seed=5), 1)
    assert parts.texts == whole.texts
    other = MemoryHistory(TEXT, Bowl(1), PRESET)
    other.run(SearchAgent(seed=6), 25)
    assert other.texts != whole.texts


def test_fixed_constants_are_left_alone() -> None:
    history = MemoryHistory(TEXT, Bowl(0), PRESET, Program(fixed=tuple(name for name in SPACES if name != "DEPTH")))
    history.run(SearchAgent(), 30)
    assert {tuple(read_constants(text)[name] for name in SPACES if name != "DEPTH") for text in history.texts} == {
        tuple(read_constants(TEXT)[name] for name in SPACES if name != "DEPTH")
    }
    assert sorted(int(str(read_constants(text)["DEPTH"])) for text in history.texts) == list(range(2, 9))


def test_a_space_that_is_used_up_ends_the_search() -> None:
    text = "A = 1  # tune: one of 1, 2, 3\nB = True  # tune: one of True, False\n"
    history = MemoryHistory(text, lambda constants: 1.0 + float(str(constants["A"])), PRESET)
    history.run(SearchAgent(), 50)
    assert len(history) == 6  # each pair once
    assert SearchAgent().propose(history) is None


def test_nothing_to_tune_is_told() -> None:
    for text, program in (("A = 1\n", Program()), ("A = 1  # tune: int 1 .. 2\n", Program(fixed=("A",)))):
        with pytest.raises(UserError, match=r"no constant with a `# tune:` comment"):
            SearchAgent().propose(MemoryHistory(text, lambda constants: 1.0, PRESET, program))


def test_ranges_are_read_anew_from_each_champion() -> None:
    history = MemoryHistory("A = 1.0  # tune: linear 0 .. 2\n", lambda c: -float(str(c["A"])), PRESET)
    history.run(SearchAgent(), 10)
    edited = "A = 50.0  # tune: linear 40 .. 60\nB = 1  # tune: int 1 .. 9\n"
    assert history.record(Proposal(text=edited, hypothesis="", agent="try")).verdict == "keep"
    history.run(SearchAgent(), 15)
    for text in history.texts[12:]:
        assert 40 <= float(str(read_constants(text)["A"])) <= 60
    assert len({read_constants(text)["B"] for text in history.texts[12:]}) > 1


def test_a_champion_outside_its_range_can_be_searched() -> None:
    text = "A = 2**19  # tune: log int 1024 .. 65536\nB = 9.0  # tune: linear 0 .. 1\nC = 5  # tune: one of 1, 2\n"
    text += 'D = "auto"  # tune: one of 1, 2\n'
    history = MemoryHistory(text, lambda c: 1.0, PRESET)
    history.run(SearchAgent(), 20)
    assert len(history) == 21


def test_a_switch_that_alone_makes_the_difference_is_found() -> None:
    # One combination of three switches is lower by 0.1; all else is a shallow slope.
    text = TEXT + 'TIED = False  # tune: one of True, False\nNORM = "rms"  # tune: one of "rms", "layer", "none"\n'
    best = {"TIED": True, "NORM": "none", "ADAM_BETAS": (0.9, 0.95)}

    def measure(constants: Mapping[str, Constant]) -> float:
        return (
            1.5
            - 0.03 * sum(constants[name] == value for name, value in best.items())
            - 1e-3 * place("MATRIX_LR", constants["MATRIX_LR"])
        )

    for seed in range(4):
        history = MemoryHistory(text, measure, PRESET)
        history.run(SearchAgent(seed=seed), 30)
        champion = read_constants(history.champion_text)
        assert {name: champion[name] for name in best} == best
        assert {read_constants(tried)["NORM"] for tried in history.texts} == {"rms", "layer", "none"}


@seeds(3, 8)
def test_what_others_tried_is_a_start(seeds: int) -> None:
    """Ten experiments after forty of random search get further than ten after none, from the same champion."""
    warm: list[float] = []
    cold: list[float] = []
    for seed in range(seeds):
        before = MemoryHistory(TEXT, Bowl(seed), PRESET)
        before.run(Near(seed), 40)
        alone = MemoryHistory(before.champion_text, Bowl(seed), PRESET)
        for history, into in ((before, warm), (alone, cold)):
            start = history.champion.val_bpb or 0
            history.run(SearchAgent(seed=seed), 10)
            into.append(start - (history.champion.val_bpb or 0))
    assert statistics.mean(warm) > 1.2 * statistics.mean(cold) > 0


@seeds(3, 8)
def test_an_edit_of_the_code_does_not_make_it_forget(seeds: int) -> None:
    """An edit moves every score down by 0.2: what the constants did before still holds, and the search knows it."""
    gains: dict[str, list[float]] = {"told": [], "alone": []}
    for seed in range(seeds):
        bowl = Bowl(seed)

        def measure(constants: Mapping[str, Constant], bowl: Bowl = bowl) -> float | None:
            score = bowl(constants)
            return None if score is None else score - 0.2 * ("NEW" in constants)

        before = MemoryHistory(TEXT, measure, PRESET)
        before.run(Near(seed), 40)
        edited = before.champion_text + "NEW = 2  # tune: int 1 .. 3\n"
        assert before.record(Proposal(text=edited, hypothesis="", agent="api")).verdict == "keep"
        for name, history in (("told", before), ("alone", MemoryHistory(edited, measure, PRESET))):
            start = history.champion.val_bpb or 0
            history.run(SearchAgent(seed=seed), 8)
            gains[name].append(start - (history.champion.val_bpb or 0))
    assert statistics.mean(gains["told"]) > 1.2 * statistics.mean(gains["alone"]) > 0


def test_two_near_misses_are_tried_together() -> None:
    names = [f"{letter}_{number}" for letter in "AB" for number in range(10)]
    text = "".join(f"{name} = 0  # tune: one of 0, 1\n" for name in names)
    history = MemoryHistory(text, lambda c: 1.0, PRESET)
    scores = iter([1.0005, 1.0006, *(1.5 + 0.1 * number for number in range(18))])
    history._measure = lambda constants: next(scores)
    for name in ["A_0", "B_0", *(name for name in names if not name.endswith("_0"))]:
        assert (
            history.record(Proposal(text=write_constants(text, {name: 1}), hypothesis="", agent="try")).gain is not None
        )
    history._measure = lambda constants: 2.0
    proposal = SearchAgent().propose(history)
    assert proposal is not None
    assert proposal.hypothesis == "A_0 0 -> 1, B_0 0 -> 1"


@seeds(2, 6)
def test_failures_teach_what_to_keep_away_from(seeds: int) -> None:
    """What is too large for the budget fails; the search meets that less and less, and less than random changes do."""

    def measure(constants: Mapping[str, Constant]) -> float | None:
        return None if place("DEPTH", constants["DEPTH"]) + place("ROWS", constants["ROWS"]) > 1.0 else bowl(constants)

    counts: dict[str, list[int]] = {"search": [], "random near": []}
    for seed in range(seeds):
        bowl = Bowl(seed)
        for agent in (SearchAgent(seed=seed), Near(seed)):
            history = MemoryHistory(TEXT, measure, PRESET)
            history.run(agent, 40)
            counts[agent.name] += [e.number for e in history.found if e.val_bpb is None]
    assert sum(number > 20 for number in counts["search"]) < 0.8 * sum(number > 20 for number in counts["random near"])


def test_an_edge_is_come_close_to_without_falling_off_all_the_time() -> None:
    # Everything above 0.1 crashes; the lowest score is right below it.
    text = "A = 0.05  # tune: linear 0 .. 1\n"
    history = MemoryHistory(text, lambda c: None if float(str(c["A"])) > 0.1 else 1 - float(str(c["A"])), PRESET)
    history.run(SearchAgent(), 40)
    assert (history.champion.val_bpb or 1) < 0.902
    assert sum(experiment.val_bpb is None for experiment in history.found) <= 28


def test_it_looks_at_no_more_of_a_long_history() -> None:
    history = MemoryHistory(TEXT, Bowl(0), PRESET)
    history.run(Uniform(0), 400)
    asked: list[int] = []
    constants = history.constants
    history.constants = lambda number: asked.append(number) or constants(number)  # type: ignore[method-assign,func-returns-value]
    assert SearchAgent().propose(history) is not None
    assert 90 <= len(set(asked)) <= 151


def test_the_registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    known = registry.names()
    assert "search" in known
    assert registry.make("search", seed=4).name == "search"
    with pytest.raises(UserError, match="no agent 'serch': did you mean search"):
        registry.make("serch")
    package = tmp_path / "theirs-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    (package / "entry_points.txt").write_text(
        "[autoresearch.agents]\ntheirs = their_agent:Theirs\nbroken = not_there:Agent\n"
    )
    (tmp_path / "their_agent.py").write_text(
        "class Theirs:\n    name = 'theirs'\n    def __init__(self, seed=0):\n        self.seed = seed\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert registry.names() == sorted([*known, "broken", "theirs"])
    assert registry.make("theirs", seed=8).seed == 8  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="agent broken: not_there:Agent can't be loaded"):
        registry.make("broken")


def test_a_stopped_trial_counts_as_a_usual_bad_score_and_not_as_a_failure() -> None:
    history = MemoryHistory(TEXT, Bowl(0), PRESET)
    history.run(SearchAgent(seed=1), 12)
    worse = sorted(
        e.val_bpb for e in history.found if e.val_bpb is not None and e.val_bpb > (history.champion.val_bpb or 0)
    )
    lost = next(e.number for e in reversed(history.found) if e.verdict == "discard")
    scored = history.found[lost].val_bpb
    history.found[lost] = replace(history.found[lost], verdict="stopped", val_bpb=None)
    others = [value for value in worse if value != scored]
    observed = points.observe(history, read_tunables(history.champion_text))
    assert observed.tried[lost].val_bpb == pytest.approx(np.median(others))
