"""Folds a campaign, experiment by experiment, into what its next verdict may rest on.

What runs experiments and what replays their verdicts use the same fold, so that both see the same evidence.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from core.campaign.judge.base import Effect, Evidence, Noise, Reign
from core.campaign.judge.disturbed import at_level, is_loaded
from core.campaign.judge.noise import NoisePool, scores
from core.records import COMPARE, Experiment, Measurement, Trial
from core.store.ledger import Ledger
from core.store.program import Limits

LINEAGE = 12  # trainers that were kept last, whose scores still bear on the champion's
LEVELS = (False, True)  # whether other processes load the device: scores scatter more then
EFFECTS = 200  # experiments that the prior is learned from


@dataclass(frozen=True)
class Candidate:
    """What a verdict weighs beside trials: the sizes of both syntax trees, and program.md's limits."""

    nodes: int | None = None
    champion_nodes: int | None = None
    limits: Limits = field(default_factory=Limits)


class EvidenceBuilder:
    """Knows the experiments that it was given, in order."""

    def __init__(self, seeds: tuple[int, ...]) -> None:
        self._seeds = seeds
        self._reigns: list[Reign] = []  # of the baseline and of the last that were kept
        self._effects: deque[Effect] = deque(maxlen=EFFECTS)
        self._pools = {level: NoisePool() for level in LEVELS}  # of trainers that are no longer measured
        self._remeasured: tuple[Measurement, ...] = ()

    @classmethod
    def of(cls, ledger: Ledger, seeds: tuple[int, ...]) -> EvidenceBuilder:
        """That of a whole ledger."""
        builder = cls(seeds)
        for experiment in ledger.experiments():
            builder.add(experiment, measured_for(ledger, experiment.number))
        return builder

    def add(self, experiment: Experiment, measured: Sequence[Measurement]) -> None:
        """The next experiment, decided, with what was measured for it (`measured_for`)."""
        self._reigns = _with(self._reigns, measured)
        self._remeasured = tuple(one for one in measured if one.purpose == "drift") or self._remeasured
        if experiment.verdict == "invalid":  # what it scored is not true
            return
        champion = self._reigns[-1] if self._reigns else None
        for loaded, pool in self._pools.items():
            own = scores(at_level(experiment.trials, loaded=loaded))
            if champion is not None:
                pool.add_pairs(scores(at_level(champion.trials, loaded=loaded)), own)
            if experiment.verdict != "keep":
                pool.add_seeds(own)
            elif len(self._reigns) > 1 and champion is not None:  # complete now; the baseline's trials never are
                pool.add_seeds(scores(at_level(champion.trials, loaded=loaded)))
        if experiment.effect is not None and experiment.effect_error is not None:
            self._effects.append(Effect(gain=experiment.effect, error=experiment.effect_error))
        if experiment.verdict != "keep":
            return
        self._reigns.append(Reign(experiment=experiment))
        if len(self._reigns) > LINEAGE + 1:
            del self._reigns[1]

    def evidence(
        self, trials: Sequence[Trial], measured: Sequence[Measurement], about: Candidate | None = None
    ) -> Evidence:
        """What the verdict of the next experiment may rest on, after these trials of it and of what was measured."""
        about = about or Candidate()
        reigns = _with(self._reigns, measured)
        champion = reigns[-1] if reigns else None
        drift = tuple(one for one in measured if one.purpose == "drift")
        return Evidence(
            seeds=self._seeds,
            trials=tuple(trials),
            champion=None if champion is None else champion.experiment,
            baseline=reigns[0].experiment if reigns else None,
            remeasured=drift or self._remeasured,
            lineage=tuple(reigns[-LINEAGE:]),
            baseline_again=reigns[0].again if reigns else (),
            effects=tuple(self._effects),
            noise=self._noise(reigns, trials or (champion.trials if champion is not None else ())),
            nodes=about.nodes,
            champion_nodes=about.champion_nodes,
            limits=about.limits,
        )

    def _noise(self, reigns: Sequence[Reign], newest: Sequence[Trial]) -> Noise:
        """That of a quiet device, or of a loaded one, as the newest trial was."""
        loaded = bool(newest) and is_loaded(newest[-1])
        here, elsewhere = (self._noise_at(level, reigns) for level in (loaded, not loaded))
        if here.seeds_freedom or not elsewhere.seeds_freedom:
            return here
        # Little more than a guess.
        return replace(elsewhere, seeds_freedom=1, pairs_freedom=min(1, elsewhere.pairs_freedom))

    def _noise_at(self, loaded: bool, reigns: Sequence[Reign]) -> Noise:
        pool = self._pools[loaded].copy()
        for reign in (*reigns[:1], *reigns[1:][-1:]):
            pool.add_seeds(scores(at_level(reign.trials, loaded=loaded)))
        return pool.noise()


def _with(reigns: Sequence[Reign], measured: Iterable[Measurement]) -> list[Reign]:
    """The reigns with these trials, each given to the trainer that ran."""
    again: dict[int, list[Trial]] = {}
    for one in measured:
        again.setdefault(one.experiment, []).append(one.trial)
    return [
        replace(reign, again=(*reign.again, *again[reign.experiment.number]))
        if reign.experiment.number in again
        else reign
        for reign in reigns
    ]


def measured_for(ledger: Ledger, number: int) -> list[Measurement]:
    """What was measured of champion and baseline before and for that experiment, in the order it ran."""
    return [*ledger.measurements("drift", number - 1), *ledger.measurements(COMPARE, number)]
