"""Folds a campaign, experiment by experiment, into what its next verdict may rest on.

What runs experiments and what replays their verdicts use the same fold, so that both see the same evidence.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from core.campaign.judge.base import Effect, Evidence, Noise, Reign
from core.campaign.judge.noise import NoisePool, scores
from core.records import COMPARE, Experiment, Measurement, Trial
from core.store.ledger import Ledger
from core.store.program import Limits

LINEAGE = 12  # trainers that were kept last, whose scores still bear on the champion's
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
        self._pool = NoisePool()  # of trainers that are no longer measured
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
        own = scores(experiment.trials)
        champion = self._reigns[-1] if self._reigns else None
        if champion is not None:
            self._pool.add_pairs(scores(champion.trials), own)
        if experiment.effect is not None and experiment.effect_error is not None:
            self._effects.append(Effect(gain=experiment.effect, error=experiment.effect_error))
        if experiment.verdict != "keep":
            self._pool.add_seeds(own)
            return
        if len(self._reigns) > 1:  # its trials are complete now; the baseline's never are
            self._pool.add_seeds(scores(self._reigns[-1].trials))
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
            noise=self._noise(reigns),
            nodes=about.nodes,
            champion_nodes=about.champion_nodes,
            limits=about.limits,
        )

    def _noise(self, reigns: Sequence[Reign]) -> Noise:
        pool = self._pool.copy()
        for reign in (*reigns[:1], *reigns[1:][-1:]):
            pool.add_seeds(scores(reign.trials))
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
