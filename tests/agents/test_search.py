"""The search agent on histories in memory, where a trial is a function of the constants."""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from campaigns import PRESET
from histories import MemoryHistory

from core import agents
from core.agents import search, tunables
from core.agents.base import Agent, History
from core.agents.search import SearchAgent
from core.program import Program
from core.records import Constant, Proposal, UserError

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
SPACES = tunables.read(TEXT)


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


class Uniform(Agent):
    """Random search: every constant anew, uniform in its own scale."""

    name = "uniform"

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def propose(self, history: History) -> Proposal:
        rng = np.random.default_rng([self._seed, len(history)])
        values: dict[str, Constant] = {}
        for name, tunable in SPACES.items():
            if tunable.choices is not None:
                values[name] = tunable.choices[rng.integers(len(tunable.choices))]
            else:
                assert tunable.low is not None and tunable.high is not None
                low, high = (math.log(end) if tunable.log else end for end in (tunable.low, tunable.high))
                value = math.exp(rng.uniform(low, high)) if tunable.log else rng.uniform(low, high)
                values[name] = round(value) if tunable.integer else value
        return Proposal(text=tunables.write(TEXT, values), hypothesis="", agent=self.name)


def test_it_changes_one_to_three_constants_of_the_champion_within_their_ranges() -> None:
    history = MemoryHistory(TEXT, Bowl(0), PRESET)
    agent = SearchAgent(seed=3)
    sizes = []
    for _ in range(80):
        before = tunables.constants(history.champion_text)
        proposal = agent.propose(history)
        assert proposal is not None
        after = tunables.constants(proposal.text)
        changed = [name for name in SPACES if before[name] != after[name]]
        sizes.append(len(changed))
        assert proposal.agent == "search"
        assert proposal.hypothesis == ", ".join(
            f"{name} {tunables.literal(before[name])} -> {tunables.literal(after[name])}" for name in changed
        )
        for name in SPACES:
            assert 0 <= place(name, after[name]) <= 1
            assert type(after[name]) is type(before[name])
        # nothing but those literals
        assert tunables.write(proposal.text, {name: before[name] for name in changed}) == history.champion_text
        history.record(proposal)
    assert set(sizes) == {1, 2, 3}
    assert len({e.fingerprint for e in history.found}) == 81


def test_it_finds_more_than_random_search_in_thirty_trials() -> None:
    found: dict[str, list[float]] = {"search": [], "uniform": []}
    for seed in range(10):
        competitors: tuple[Agent, ...] = (SearchAgent(seed=seed), Uniform(seed))
        for agent in competitors:
            history = MemoryHistory(TEXT, Bowl(seed), PRESET)
            history.run(agent, 30)
            found[agent.name].append(history.champion.val_bpb or 0)
    assert sum(a < b for a, b in zip(found["search"], found["uniform"], strict=True)) >= 8
    assert statistics.mean(found["search"]) - 1.5 < 0.6 * (statistics.mean(found["uniform"]) - 1.5)


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
    assert {tuple(tunables.constants(text)[name] for name in SPACES if name != "DEPTH") for text in history.texts} == {
        tuple(tunables.constants(TEXT)[name] for name in SPACES if name != "DEPTH")
    }
    assert sorted(int(str(tunables.constants(text)["DEPTH"])) for text in history.texts) == list(range(2, 9))


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
        assert 40 <= float(str(tunables.constants(text)["A"])) <= 60
    assert len({tunables.constants(text)["B"] for text in history.texts[12:]}) > 1


def test_a_champion_outside_its_range_can_be_searched() -> None:
    text = "A = 2**19  # tune: log int 1024 .. 65536\nB = 9.0  # tune: linear 0 .. 1\nC = 5  # tune: one of 1, 2\n"
    history = MemoryHistory(text, lambda c: 1.0, PRESET)
    history.run(SearchAgent(), 20)
    assert len(history) == 21


def test_small_steps_are_more_common_than_large_ones() -> None:
    rng = np.random.default_rng(0)
    tunable = tunables.read("A = 0.1  # tune: log 0.001 .. 10\n")["A"]
    steps = [abs(math.log(float(str(search._step(rng, tunable))) / 0.1)) / math.log(10_000) for _ in range(2000)]
    near, far = (sum(low <= step < low + 0.1 for step in steps) for low in (0, 0.4))
    assert near > 4 * far > 0


def test_crashes_are_kept_away_from() -> None:
    # Everything above 0.1 crashes; the lowest score is right below it.
    text = "A = 0.05  # tune: linear 0 .. 1\n"
    history = MemoryHistory(text, lambda c: None if float(str(c["A"])) > 0.1 else 1 - float(str(c["A"])), PRESET)
    history.run(SearchAgent(), 60)
    failed = [e.verdict == "crash" for e in history.found]
    assert sum(failed[30:]) < sum(failed[1:31])
    assert (history.champion.val_bpb or 1) < 0.91


def test_a_proposal_stays_quick_as_the_history_grows() -> None:
    history = MemoryHistory(TEXT, Bowl(0), PRESET)
    both: tuple[Agent, ...] = (SearchAgent(), Uniform(0))
    for agent in both:
        history.run(agent, 100)
    SearchAgent().propose(history)
    begun = time.perf_counter()
    for _ in range(5):
        SearchAgent().propose(history)
    assert (time.perf_counter() - begun) / 5 < 0.2


def test_optuna_says_nothing() -> None:
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "from test_search import *\n"
        "MemoryHistory(TEXT, Bowl(0), PRESET).run(SearchAgent(), 12)\n"
    )
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(here), str(here.parent), str(here.parents[1])],
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    known = agents.names()
    assert "search" in known
    assert agents.make("search", seed=4).name == "search"
    with pytest.raises(UserError, match="no agent 'serch'; there are .*search"):
        agents.make("serch")
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
    assert agents.names() == sorted([*known, "broken", "theirs"])
    assert agents.make("theirs", seed=8).seed == 8  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="agent broken: not_there:Agent can't be loaded"):
        agents.make("broken")
