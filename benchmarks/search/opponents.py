"""The search's opponents: random search, random changes of the champion, and Optuna's TPE.

All of them propose whole texts of constants, deterministic by seed and number.
"""

from __future__ import annotations

import numpy as np

from benchmarks.search import space
from core.agents.base import Agent, History
from core.agents.search import moves
from core.records import Constant, Proposal
from core.trainer.constants import read_tunables, write_constants
from core.trainer.literals import same


class Opponent(Agent):
    """Proposes what `_values` returns, called until its result is untried."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    def propose(self, history: History) -> Proposal:
        """Any number of constants changed."""
        rng = np.random.default_rng([self._seed, len(history)])
        spaces = read_tunables(history.champion_text)
        while True:
            text = write_constants(history.champion_text, self._values(rng, spaces, history))
            if not history.tried(text):
                return Proposal(text=text, hypothesis="", agent=self.name)

    def _values(self, rng: np.random.Generator, spaces: space.Spaces, history: History) -> dict[str, Constant]:
        raise NotImplementedError


class Uniform(Opponent):
    """Random search: every constant anew, uniform in its own scale."""

    name = "random"

    def _values(self, rng: np.random.Generator, spaces: space.Spaces, history: History) -> dict[str, Constant]:
        return space.draw_all(rng, spaces)


class Near(Opponent):
    """Random search around the champion: one to three of its constants anew."""

    name = "random near"

    def _values(self, rng: np.random.Generator, spaces: space.Spaces, history: History) -> dict[str, Constant]:
        return space.draw_some(rng, spaces, {name: tunable.value for name, tunable in spaces.items()})


class Tpe(Near):
    """Optuna's TPE (Bergstra et al. 2011) for one to three constants of the champion, after five that are random."""

    name = "tpe"

    def _values(self, rng: np.random.Generator, spaces: space.Spaces, history: History) -> dict[str, Constant]:
        drawn = super()._values(rng, spaces, history)
        if len(history) <= 5:
            return drawn
        changed = {name: spaces[name] for name in spaces if not same(drawn[name], spaces[name].value)}
        return drawn | self._suggested(rng, changed, history)

    @staticmethod
    def _suggested(rng: np.random.Generator, spaces: space.Spaces, history: History) -> dict[str, Constant]:
        import optuna
        from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
        from optuna.trial import TrialState, create_trial

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        distributions: dict[str, BaseDistribution] = {}
        for name, tunable in spaces.items():
            if tunable.choices is not None:  # positions: Optuna has no tuples among its categories
                distributions[name] = CategoricalDistribution(list(range(len(tunable.choices))))
                continue
            low, high = moves.ends(tunable)
            if tunable.integer:
                distributions[name] = IntDistribution(int(low), int(high), log=tunable.log)
            else:
                distributions[name] = FloatDistribution(low, high, log=tunable.log)
        sampler = optuna.samplers.TPESampler(n_startup_trials=0, seed=int(rng.integers(2**31)))
        study = optuna.create_study(sampler=sampler)
        for experiment in history.recent(len(history)):
            values = history.constants(experiment.number)
            if not all(moves.allowed(tunable, values[name]) for name, tunable in spaces.items()):
                continue
            choices = {name: tunable.choices for name, tunable in spaces.items()}
            study.add_trial(
                create_trial(
                    state=TrialState.PRUNED if experiment.val_bpb is None else TrialState.COMPLETE,
                    value=experiment.val_bpb,
                    params={
                        name: values[name] if listed is None else listed.index(values[name])
                        for name, listed in choices.items()
                    },
                    distributions=distributions,
                )
            )
        asked = study.ask(distributions).params
        found: dict[str, Constant] = {}
        for name, tunable in spaces.items():
            if tunable.choices is not None:
                found[name] = tunable.choices[asked[name]]
            else:
                found[name] = asked[name] if tunable.integer else float(f"{asked[name]:.3g}")
        return found
