"""Campaigns without trials: a history in memory, whose scores come from a function or from a table."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.search.surrogate import Surrogate
from core.agents.base import Agent
from core.agents.search.recorded import Row
from core.records import Constant, Preset, Proposal, Trial
from core.trainer.constants import read_constants, write_constants
from presets import cost

if TYPE_CHECKING:
    from histories import MemoryHistory

Measure = Callable[[Mapping[str, Constant]], float | None]


def new(text: str, measure: Measure, preset: Preset, trials: tuple[Trial, ...] = ()) -> MemoryHistory:
    """A campaign that has its baseline. A strictly lower score is kept, as `core.campaign.judge.LowerWins` keeps it."""
    _import_tests_helpers()
    from histories import MemoryHistory

    return MemoryHistory(text, measure, preset, trials=trials)


def baseline_trial(surrogate: Surrogate, text: str, preset: Preset) -> Trial:
    """The baseline's record as far as an agent reads it: what the trial came to."""
    _import_tests_helpers()
    from campaigns import a_trial

    steps = round(surrogate.steps(read_constants(text)))
    return a_trial(steps=steps, tokens=steps * preset.total_batch_size, parameters=cost.parameters(preset))


def _import_tests_helpers() -> None:
    tests = str(Path(__file__).resolve().parents[2] / "tests")  # the agents' tests have the same history
    if tests not in sys.path:
        sys.path.append(tests)


def replayed(text: str, rows: Sequence[Row], preset: Preset) -> MemoryHistory:
    """Recorded rows, the baseline first, as an agent sees a campaign."""
    scores = iter([row.val_bpb for row in rows])
    history = new(text, lambda constants: next(scores), preset)
    for row in rows[1:]:
        history.record(Proposal(text=write_constants(text, row.constants), hypothesis="", agent=row.kind))
    return history


def constants_of(text: str, also: Collection[str] = ()) -> str:
    """The lines of a trainer that a search may change, and those of constants `also`: quick to read again and again."""
    lines = text.splitlines(keepends=True)
    return "".join(line for line in lines if "# tune:" in line or line.partition(" = ")[0] in also)


@dataclass(frozen=True)
class Played:
    """A campaign that is over. Bits per byte; `best[n]` is the champion's score after n experiments, without noise."""

    best: tuple[float, ...]
    noisy: float  # of the champion, as it was measured
    failures: int
    kept: int
    champion: Mapping[str, Constant]


def play(
    agent: Agent,
    surrogate: Surrogate,
    noise: float,
    text: str,
    preset: Preset,
    seed: int,
    count: int,
    trials: tuple[Trial, ...] = (),
) -> Played:
    """`count` experiments after the baseline. The n-th trial's noise depends on `seed` and n alone: pairs share it."""
    numbers = iter(range(count + 1))

    def measure(values: Mapping[str, Constant]) -> float | None:
        score = surrogate.noise_free(values)
        moved = noise * float(np.random.default_rng([seed, next(numbers), 1]).standard_normal())
        return None if score is None else score + moved

    history = new(text, measure, preset, trials)
    best = []
    for number in range(count + 1):
        if number:
            history.run(agent, 1)
        champion = surrogate.noise_free(read_constants(history.champion_text))
        assert champion is not None
        best.append(champion)
    failures = sum(experiment.val_bpb is None for experiment in history.found)
    kept = sum(experiment.verdict == "keep" for experiment in history.found) - 1
    assert history.champion.val_bpb is not None
    return Played(tuple(best), history.champion.val_bpb, failures, kept, read_constants(history.champion_text))
