"""The built-in search: changes a few `# tune:` constants of the champion at a time, with Optuna's TPE and small steps.

Rebuilt from the history at every proposal, so that a campaign can go on in another process with the same proposals.
It never edits anything but constants.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalChoiceType,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from core.agents import tunables
from core.agents.base import Agent, History
from core.agents.tunables import Tunable, same
from core.records import Constant, Proposal, UserError

# One, two or three constants a proposal: one alone tells most about itself, but takes many trials to get far.
SUBSET_WEIGHTS = (1 / 3, 1 / 3, 1 / 3)
# TPE with fewer points than this is a uniform draw; steps from the champion are better than that.
WARM = 5
TPE_SHARE = 0.8  # of the proposals once it is warm; the rest are steps, which look where TPE has given up
STEP_SCALES = (0.1, 0.5)  # of a constant's range (its logarithm's if `log`); log-uniform, so small steps are common
RECENT, BEST = 200, 100  # experiments that are told to TPE in a long campaign
ATTEMPTS = 200
DIGITS = 3  # of a proposed float


class SearchAgent(Agent):
    """Champion-centred search, deterministic by `seed` and the number of the experiment."""

    name = "search"

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        optuna.logging.set_verbosity(optuna.logging.ERROR)

    def propose(self, history: History) -> Proposal | None:
        """One to three constants changed; None once nothing new is found in the ranges.

        Raises UserError if the champion has no constant to tune.
        """
        spaces = {
            name: tunable
            for name, tunable in tunables.read(history.champion_text).items()
            if name not in history.program.fixed
        }
        if not spaces:
            raise UserError(
                "the search has nothing to change: the champion's train.py has no constant with a `# tune:` comment "
                "that program.md leaves free; add one, such as `MATRIX_LR = 0.04  # tune: log 0.005 .. 0.2`"
            )
        rng = np.random.default_rng([self._seed, len(history)])
        told = _points(history, spaces)
        refused: set[str] = set()
        for attempt in range(ATTEMPTS):
            subset = self._subset(rng, spaces)
            if len(told) >= WARM and rng.random() < TPE_SHARE * (1 - attempt / ATTEMPTS):
                changed = _suggest(rng, {name: spaces[name] for name in subset}, told)
            else:
                changed = {name: _step(rng, spaces[name]) for name in subset}
            changed = {name: value for name, value in changed.items() if not same(value, spaces[name].value)}
            key = repr(sorted(changed.items()))
            if not changed or key in refused:
                continue
            text = tunables.write(history.champion_text, changed)
            if history.tried(text):
                refused.add(key)
                continue
            hypothesis = ", ".join(
                f"{name} {tunables.literal(spaces[name].value)} -> {tunables.literal(value)}"
                for name, value in changed.items()
            )
            return Proposal(text=text, hypothesis=hypothesis, agent=self.name)
        return None

    def _subset(self, rng: np.random.Generator, spaces: Mapping[str, Tunable]) -> list[str]:
        sizes = min(len(SUBSET_WEIGHTS), len(spaces))
        weights = np.array(SUBSET_WEIGHTS[:sizes])
        size = 1 + int(rng.choice(sizes, p=weights / weights.sum()))
        chosen = set(rng.choice(sorted(spaces), size=size, replace=False, p=_weights(spaces)).tolist())
        return [name for name in spaces if name in chosen]


def _weights(spaces: Mapping[str, Tunable]) -> list[float]:
    """How often each constant is picked. Equal; one whose change costs a compilation belongs here with less."""
    return [1 / len(spaces)] * len(spaces)


Point = tuple[dict[str, Constant], float | None]


def _points(history: History, spaces: Mapping[str, Tunable]) -> list[Point]:
    """What was tried within the champion's ranges: (constants, val_bpb, or None where it failed), oldest first."""
    champion = {name: tunable.value for name, tunable in spaces.items()}
    found = {experiment.number: experiment for experiment in (*history.best(BEST), *history.recent(RECENT))}
    points: list[Point] = []
    for number in sorted(found):
        constants = history.constants(number)
        values = {name: constants[name] for name in spaces if name in constants}
        if len(values) < len(spaces) or not all(_within(spaces[name], value) for name, value in values.items()):
            continue
        score = found[number].val_bpb
        # A failure with the champion's own constants came from an edit elsewhere, and says nothing about them.
        if score is not None or values != champion:
            points.append((values, score))
    return points


def _suggest(rng: np.random.Generator, subset: Mapping[str, Tunable], told: Sequence[Point]) -> dict[str, Constant]:
    """TPE's suggestion for these constants (Bergstra et al. 2011, as Optuna implements it), the rest at the champion's.

    A failure counts as worse than every score: TPE ranks a pruned trial without values last.
    """
    sampler = optuna.samplers.TPESampler(n_startup_trials=0, seed=int(rng.integers(2**31)), constant_liar=False)
    study = optuna.create_study(sampler=sampler)
    spaces = {name: _distribution(tunable) for name, tunable in subset.items()}
    study.add_trials([_trial(values, score, subset, spaces) for values, score in told])
    asked = study.ask(spaces).params
    return {name: _from_optuna(tunable, asked[name]) for name, tunable in subset.items()}


def _trial(
    values: Mapping[str, Constant],
    score: float | None,
    subset: Mapping[str, Tunable],
    spaces: dict[str, BaseDistribution],
) -> FrozenTrial:
    return optuna.trial.create_trial(
        state=TrialState.PRUNED if score is None else TrialState.COMPLETE,
        value=score,
        params={name: _to_optuna(tunable, values[name]) for name, tunable in subset.items()},
        distributions=spaces,
    )


def _distribution(tunable: Tunable) -> BaseDistribution:
    if tunable.choices is not None:
        # Positions, not values: Optuna has no tuples among its categories, and 1 == True == 1.0 there.
        positions: list[CategoricalChoiceType] = list(range(len(tunable.choices)))
        return CategoricalDistribution(positions)
    assert tunable.low is not None and tunable.high is not None
    if tunable.integer:
        return IntDistribution(int(tunable.low), int(tunable.high), log=tunable.log)
    return FloatDistribution(tunable.low, tunable.high, log=tunable.log)


def _to_optuna(tunable: Tunable, value: Constant) -> Any:
    return value if tunable.choices is None else _position(tunable.choices, value)


def _from_optuna(tunable: Tunable, value: Any) -> Constant:
    if tunable.choices is not None:
        return tunable.choices[int(value)]
    return int(value) if tunable.integer else _rounded(tunable, float(value))


def _within(tunable: Tunable, value: Constant) -> bool:
    if tunable.choices is not None:
        return _position(tunable.choices, value) is not None
    if isinstance(value, bool) or not isinstance(value, int if tunable.integer else (int, float)):
        return False
    assert tunable.low is not None and tunable.high is not None
    return tunable.low <= value <= tunable.high


def _step(rng: np.random.Generator, tunable: Tunable) -> Constant:
    """A step from the champion's value: Laplace in the constant's own scale, its width log-uniform over STEP_SCALES."""
    if tunable.choices is not None:
        return _neighbour(rng, tunable.choices, tunable.value)
    assert tunable.low is not None and tunable.high is not None and isinstance(tunable.value, (int, float))
    scale = math.log if tunable.log else float
    low, high = scale(tunable.low), scale(tunable.high)
    here = scale(min(max(tunable.value, tunable.low), tunable.high))  # a preset may start outside the range
    narrow, wide = STEP_SCALES
    width = math.exp(rng.uniform(math.log(narrow), math.log(wide))) * (high - low)
    there = here + rng.laplace(0, width)
    # Reflected, not clipped: clipping would pile the proposals up at the ends.
    span = high - low
    offset = (there - low) % (2 * span)
    there = low + (offset if offset <= span else 2 * span - offset)
    value = math.exp(there) if tunable.log else there
    if not tunable.integer:
        return _rounded(tunable, value)
    whole = round(value)
    if whole == tunable.value:
        whole += 1 if there > here else -1
    return int(min(max(whole, tunable.low), tunable.high))


def _neighbour(rng: np.random.Generator, choices: Sequence[Constant], value: Constant) -> Constant:
    """Another choice: of numbers mostly the next one up or down, of anything else any."""
    others = [choice for choice in choices if not same(choice, value)]
    numbers = sorted(choice for choice in choices if isinstance(choice, (int, float)) and not isinstance(choice, bool))
    if len(numbers) == len(choices) and isinstance(value, (int, float)) and rng.random() < 0.75:
        below = [number for number in numbers if number < value][-1:]
        above = [number for number in numbers if number > value][:1]
        others = [*below, *above]
    return others[int(rng.integers(len(others)))]


def _rounded(tunable: Tunable, value: float) -> float:
    assert tunable.low is not None and tunable.high is not None
    return min(max(float(f"{value:.{DIGITS}g}"), tunable.low), tunable.high)


def _position(choices: Sequence[Constant], value: Constant) -> int | None:
    return next((place for place, choice in enumerate(choices) if same(choice, value)), None)
