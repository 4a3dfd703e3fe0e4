"""Comparisons of backends and presets: which trials to run, and how their records become ranked entries.

Prints nothing. Scores with different yardsticks are never ranked.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import backends
import presets
from core.records import Budget, DeviceName, Preset, Trial, UserError, to_json
from core.system import accelerators
from core.system.text import chance
from core.trainer.constants import read_constants
from core.trial.probe import require
from presets.devices import DRIVERS

Tell = Callable[[str], None]
Curve = list[dict[str, float]]  # step, seconds since the first batch, progress, loss in nats a token
RunTrial = Callable[[Preset, Budget, int, str], tuple[Trial, Curve]]  # takes preset, budget, seed and a title

# Constants that mean something to one backend only, so others don't get them.
OWN_CONSTANTS = ("COMPILE",)
WARM_STEPS = 2
MEASURED = (
    "steps",
    "tokens",
    "startup_seconds",
    "train_seconds",
    "score_seconds",
    "wall_seconds",
    "tokens_per_second",
    "mfu",
    "peak_flops",
    "peak_memory_mb",
    "final_loss",
)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A row of a comparison: a name, its trials, and their curves where they are known."""

    name: str
    trials: tuple[Trial, ...]
    curves: tuple[Curve, ...] = ()
    belief: NormalDist | None = None  # of a campaign with beliefs: its newest one about the champion's score

    @property
    def failure(self) -> Trial | None:
        """The first trial without a score; None if all have one."""
        return next((trial for trial in self.trials if trial.val_bpb is None), None)

    @property
    def scores(self) -> list[float]:
        """Every trial's score; empty if one of them failed."""
        return [trial.val_bpb for trial in self.trials if trial.val_bpb is not None] if self.failure is None else []

    @property
    def val_bpb(self) -> float | None:
        """What its campaign believes, else the mean of the trials' scores; None if one of them failed."""
        if self.belief is not None:
            return self.belief.mean
        return statistics.fmean(self.scores) if self.scores else None

    @property
    def deviation(self) -> float | None:
        """The standard deviation of its campaign's belief; None without one."""
        return None if self.belief is None else self.belief.stdev

    @property
    def spread(self) -> float | None:
        """The largest minus the smallest score; None for a single trial, and if one failed."""
        return max(self.scores) - min(self.scores) if len(self.scores) > 1 else None

    @property
    def scored(self) -> Scored:
        """What its trials were scored on."""
        trial = self.trials[0]
        return Scored(name=self.name, corpus=trial.corpus, bytes=trial.scored_bytes, yardstick=trial.yardstick)

    def row(self) -> dict[str, Any]:
        """JSON with the keys of `train --json`: medians of the measured values, and the mean score."""
        first, failure = self.trials[0], self.failure
        row = to_json(first)
        for key in MEASURED:
            values = [value for trial in self.trials if (value := getattr(trial, key)) is not None]
            middle = statistics.median(values) if values else None
            row[key] = round(middle) if isinstance(getattr(first, key), int) and middle is not None else middle
        if failure is not None:
            row |= {"verdict": failure.verdict, "reason": failure.reason}
        overhead = statistics.median(trial.wall_seconds - trial.train_seconds for trial in self.trials)
        return {
            "name": self.name,
            **row,
            "val_bpb": self.val_bpb,
            "deviation": self.deviation,
            "val_bpb_spread": self.spread,
            "seeds": [trial.seed for trial in self.trials],
            "overhead_seconds": overhead,
            "trials": [to_json(trial) for trial in self.trials],
        }


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The text that one side is scored on: enough to say how two sides differ."""

    name: str
    corpus: str
    bytes: int | None  # the preset's score_bytes, or those that were scored; None if unknown
    yardstick: str

    def __str__(self) -> str:
        amount = "unknown" if self.bytes is None else f"{self.bytes:,}"
        return f"{self.name} is scored on {amount} bytes of {self.corpus or 'an unnamed corpus'}"


def of_backends(
    preset: Preset, names: Sequence[str] | None, device: str | None, tell: Tell = lambda line: None
) -> dict[str, Preset]:
    """The preset on each of the backends `names`, or on all that can run here.

    Passes what is left out to `tell`. UserError if a named backend, or the preset's own, can't run.
    """
    for name in names or ():
        if reason := backends.get(name).missing():
            raise UserError(f"backend {name!r} can't run here: {reason}")
    installed = [name for name in backends.names() if backends.get(name).missing() is None]
    chosen = names or [name for name in installed if backends.get(name).has_model]
    if not chosen:
        lacking = [backends.get(name).missing() for name in backends.names()]
        raise UserError(f"no backend is installed to compare: {'; '.join(filter(None, lacking))}")
    sides, left_out = {}, []
    for name in dict.fromkeys(chosen):
        try:
            side = on_backend(preset, name, device, tell)
            require(side)
        except UserError as error:
            if names or name == preset.backend:
                raise
            left_out.append(str(error))
            tell(f"without {name}: {error}")
        else:
            sides[name] = side
    if not sides:
        raise UserError(f"no backend can run preset {preset.name} here: {'; '.join(left_out)}")
    return sides


def on_backend(preset: Preset, backend: str, device: str | None = None, tell: Tell = lambda line: None) -> Preset:
    """The preset on another backend, without the constants that its trainer lacks, which are passed to `tell`."""
    if backend == preset.backend:
        return preset if device is None else dataclasses.replace(preset, device=device)
    has = read_constants(backends.trainer_path(backend).read_text(encoding="utf-8"))
    constants = {key: value for key, value in preset.constants.items() if key in has and key not in OWN_CONSTANTS}
    if dropped := [key for key in preset.constants if key not in constants]:
        tell(f"{backend}: without {', '.join(dropped)}, which its trainer does not have")
    own = device or _same_device(preset, backend)
    return dataclasses.replace(preset, backend=backend, device=own, constants=constants)


def _same_device(preset: Preset, backend: str) -> str:
    """The other backend's name for the preset's device; UserError if it can't use such a device."""
    place = DeviceName.parse(preset.device)
    kind = place.kind
    if kind in ("cpu", "auto"):
        return preset.device
    of_kind = {of: dict(drivers) for of, drivers in DRIVERS.items() if (preset.backend, kind) in drivers}
    called = {of: names[backend] for of, names in of_kind.items() if backend in names}
    if not called:
        raise UserError(
            f"backend {backend!r} can't use {preset.backend}'s {preset.device}, the device of preset {preset.name}: "
            "name a device with --device, or leave the backend out"
        )
    # PyTorch calls NVIDIA's and AMD's GPUs cuda, others don't.
    here = {one.kind for one in accelerators.accelerators()}
    name = next((name for of, name in called.items() if of in here), next(iter(called.values())))
    return str(dataclasses.replace(place, kind=name))


def interleaved(seeds: Mapping[str, Sequence[int]]) -> Iterator[tuple[str, int]]:
    """Each side's name with each of its seeds, seed by seed, so that a drift of the machine affects every side."""
    for place in range(max(map(len, seeds.values()))):
        for name, own in seeds.items():
            if place < len(own):
                yield name, own[place]


def within_wall(preset: Preset, seconds: float, run_one: RunTrial) -> Budget:
    """What remains of `seconds` after a warm start-up, which two short trials measure."""
    for what in ("compiling", "start-up"):
        trial, _ = run_one(preset, Budget(steps=WARM_STEPS), preset.seeds[0], f"{preset.backend}, {what}: ")
        if trial.verdict != "scored":
            raise UserError(f"{preset.backend} failed before anything was compared: {trial.reason}")
    left = seconds - trial.startup_seconds
    if left < 1:
        raise UserError(
            f"{preset.backend} takes {trial.startup_seconds:.1f} s to start, which leaves no time of --wall {seconds:g}"
        )
    return Budget(seconds=left)


def check_yardsticks(sides: Sequence[Scored]) -> None:
    """UserError unless all scores are of the same text. It says what differs and how to make the sides equal."""
    first = sides[0]
    other = next((side for side in sides if side.yardstick != first.yardstick), None)
    if other is None:
        return
    parts, fixes = [], []
    if first.corpus != other.corpus:
        parts, fixes = ["the corpus"], [f"--corpus {first.corpus or other.corpus}"]
    if first.bytes != other.bytes:
        parts.append("how much of it is scored")
        amounts = [side.bytes for side in (first, other) if side.bytes]
        fixes.append(f"--set score_bytes={min(amounts)}" if amounts else "the same score_bytes")
    if not parts:
        parts = ["the text of the corpus, or the version of the scoring"]
        fixes = [f"--corpus {first.corpus}, prepared by one version of autoresearch,"]
    raise UserError(
        f"these scores can't be ranked: {first}; {other}. What differs is {' and '.join(parts)}; trials with "
        f"{' '.join(fixes)} on every side can be ranked"
    )


def ranked(entries: Iterable[Entry]) -> list[Entry]:
    """Best first; those without a score last, in their order."""
    return sorted(entries, key=lambda entry: math.inf if entry.val_bpb is None else entry.val_bpb)


def conclusion(entries: Sequence[Entry]) -> str:
    """Which entry is best, and whether its lead is larger than the spread of seeds."""
    best = [entry for entry in ranked(entries) if entry.val_bpb is not None]
    if not best:
        return "nothing was scored"
    if len(best) == 1:
        return f"only {best[0].name} has a score"
    first, second = best[0], best[1]
    assert first.val_bpb is not None and second.val_bpb is not None
    lead = f"{first.name} is {second.val_bpb - first.val_bpb:.4f} bpb below {second.name}"
    if first.belief is not None and second.belief is not None:
        better = 1 - (second.belief - first.belief).cdf(0.0)
        return f"{lead}, {chance(better)} likely to be truly better"
    spreads = [entry.spread for entry in (first, second)]
    if None in spreads:
        return f"{lead}; with one seed, this may be luck"
    widest = max(spread for spread in spreads if spread is not None)
    verdict = "more than" if second.val_bpb - first.val_bpb > widest else "no more than"
    return f"{lead}: {verdict} the spread of its seeds ({widest:.4f})"


def named_presets(names: Sequence[str], changes: Mapping[str, str]) -> dict[str, Preset]:
    """Presets by their names, each on its own backend, which must be installed."""
    sides = {name: presets.load(name, changes) for name in dict.fromkeys(names)}
    for name, preset in sides.items():
        if reason := backends.get(preset.backend).missing():
            raise UserError(f"preset {name} needs backend {preset.backend!r}, which can't run here: {reason}")
        require(preset)
    return sides
