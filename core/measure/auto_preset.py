"""`--preset auto`: finds this machine's device, measures it for a minute, and applies the presets' rule to the result.

What was found is kept in the cache under the device's fingerprint, so that the minute is spent once.
"""

from __future__ import annotations

import dataclasses
import datetime
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import backends
import presets
from core.measure import doctor
from core.measure.lone_trial import lone_trial
from core.records import Budget, Preset, Trial, UserError
from core.system import hardware
from core.system.files import cache_root, digest, replacing
from core.system.text import one_line
from core.trainer.fingerprint import fingerprint
from core.trainer.reference import reference_trainer
from core.trial.probe import probe
from presets import cost, devices, scaling
from presets import estimate as estimates
from presets.devices import Device

if TYPE_CHECKING:
    from core.data import Dataset

NAME = "auto"
MOST_SECONDS = 60.0  # of measuring; the corpus is prepared before, and a cold start-up is not counted
TRIAL_STEPS = 6
MEASURED_CORPUS, SCORED_BYTES = "apidocs", 20_000  # speed depends on no text, so the one that needs no network
Tell = Callable[[str], None]
Prepare = Callable[[Preset], "Dataset"]
KILLED = "ended by SIGKILL"  # what a system does that ran out of its own memory


class StartupTimeout(UserError):
    """A trial did not come to its first batch within the allowance: the device is not known to be unable."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """The device to train on, and why it."""

    device: Device
    place: str  # the backend's name of it: "cuda:1" where that was asked for
    fingerprint: str
    told: str


@dataclass(frozen=True, kw_only=True)
class Point:
    """One measured trial."""

    preset: Preset
    trial: Trial

    @property
    def flops(self) -> float:
        """FLOP/s that training reached."""
        assert self.trial.tokens_per_second and self.trial.flops_per_token
        return self.trial.tokens_per_second * self.trial.flops_per_token

    def memory_factor(self, device: Device) -> float:
        """Peak memory over its estimate."""
        estimate = cost.memory_gb(self.preset, device.kernel, device.dtype, compiled=estimates.is_compiled(device))
        return max(1.0, (self.trial.peak_memory_mb or 0.0) * 2**20 / 1e9 / estimate)


def find(changes: Mapping[str, str]) -> list[Found]:
    """The devices of this machine that a preset could be for, best first; `changes` may name backend or device.

    UserError if there is none that an installed backend drives.
    """
    found, lacking = [], []
    asked = changes.get("device", "auto")
    for kind, here in _devices():
        for backend, device in devices.DRIVERS[kind]:
            if changes.get("backend", backend) != backend or asked.partition(":")[0] not in ("auto", device):
                continue
            if reason := backends.get(backend).missing():
                lacking.append(reason)
                continue
            place = asked if ":" in asked else device
            if (one := _placed(here, backend, place)) is None:
                continue
            facts = devices.like(kind, one.name, one.memory_gb, backend, device)
            if kind == "cpu":
                facts = dataclasses.replace(facts, tflops={facts.dtype: hardware.matrix_flops() / 1e12})
            told = f"{one.name}: {backend} on {place}" + ("" if facts.known else ", not in devices.toml")
            found.append(Found(device=facts, place=place, fingerprint=_fingerprint(facts, place, one), told=told))
    if not found:
        asked = " and ".join(f"{key} {changes[key]}" for key in ("backend", "device") if key in changes)
        raise UserError(
            f"--preset auto found no device{f' for {asked}' if asked else ''} that an installed backend drives"
            f"{': ' + '; '.join(lacking) if lacking else ''}. `autoresearch doctor` tells what is here"
        )
    return found


def preset(changes: Mapping[str, str], *, prepare: Prepare, tell: Tell, again: bool = False) -> tuple[Preset, str]:
    """The preset for this machine, and the TOML that can be saved. Measures unless that was done before, or `again`.

    `tell` hears what is found, a line each. UserError if nothing here can train.
    """
    candidates = find(changes)
    late: StartupTimeout | None = None
    load: list[str] | None = None  # looked at once: what is measured here is load, too
    for found in candidates:
        if late is not None and found.device.device == "cpu":
            raise late  # a night on the processor, for want of a minute
        tell(f"preset {NAME}: {found.told}")
        if not again and (text := kept(found)) is not None:
            tell(f"preset {NAME}: measured before; `autoresearch presets {NAME} --again` measures anew")
            return presets.parse(text), text
        if load is None:
            load = _load()
            for line in load:
                tell(f"preset {NAME}: measured beside other work: {line}")
        try:
            text = _measured(found, changes, prepare, tell, load)
        except UserError as error:
            if isinstance(error, StartupTimeout) and found.device.known:
                late = error
            if found is candidates[-1]:
                raise
            tell(f"preset {NAME}: not on this one: {error}")
            continue
        if load:
            tell(f"preset {NAME}: not kept for the next time, as other work may have slowed it")
        else:
            with replacing(_path(found)) as file:
                file.write(text.encode())
        return presets.parse(text), text
    raise AssertionError("the last candidate returns or raises")


def kept(found: Found) -> str | None:
    """The TOML that was measured for this device before; None if there is none that can be read."""
    try:
        text = _path(found).read_text(encoding="utf-8")
        presets.parse(text)
    except (OSError, ValueError, UserError):
        return None
    return text


def guess(found: Found) -> Preset:
    """What the rule gives for the device before anything is measured."""
    return _scaled(found, found.device)


def _path(found: Found) -> Path:
    return cache_root() / NAME / f"{found.fingerprint}.toml"


def _scaled(found: Found, device: Device, measured: scaling.Calibration | None = None) -> Preset:
    preset = scaling.scaled(device, presets.anchors(), measured, name=NAME)
    return dataclasses.replace(preset, device=found.place)


def _load() -> list[str]:
    """What else keeps this machine busy, a line each; empty if nothing does."""
    load = doctor.examine_load(hardware.accelerators())
    return [one_line(one.message) for one in load.diagnoses if one.status == "warning"]


def _measured(found: Found, changes: Mapping[str, str], prepare: Prepare, tell: Tell, load: list[str]) -> str:
    allowance = {key: text for key, text in changes.items() if key == "startup_seconds"}
    chosen = presets.override(guess(found), allowance)
    dataset = prepare(_to_measure(chosen))
    begun = time.monotonic()
    points = _points(chosen, dataset, found.device, tell)
    device = _as_seen(found.device, points[0].trial)
    for _ in range(2):  # the depth that is chosen decides which measurement counts
        nearest = min(points, key=lambda point: abs(point.preset.depth - chosen.depth))
        measured = scaling.Calibration(flops=nearest.flops, memory_factor=nearest.memory_factor(device))
        chosen = _scaled(found, device, measured)
    estimate = estimates.estimate(chosen, device, flops=measured.flops)
    share = measured.memory_factor * estimate.memory_gb / device.usable_gb
    estimate = dataclasses.replace(estimate, memory_share=share)
    spent = time.monotonic() - begun
    estimated = (
        f"estimate: {estimate.steps:.0f} steps, {estimate.tokens_per_parameter:.1f} tokens a parameter, "
        f"{share:.0%} of the memory, {estimate.overhead_share:.0%} of the wall time for start-up and scoring"
    )
    lines = [
        f"# {NAME}: measured on {datetime.datetime.now(datetime.UTC).date()} in {spent:.0f} s on {found.told}",
        *(f"# measured beside other work, so too slow perhaps: {line}" for line in load),
        *(f"# {_told(point)}" for point in points),
        f"# {estimated}",
        *(f"# warning: {warning}" for warning in estimate.warnings()),
    ]
    tell(estimated)
    for warning in estimate.warnings():
        tell(f"warning: {warning}")
    return "\n".join(lines) + "\n" + presets.dump(chosen)


def _points(first: Preset, dataset: Dataset, device: Device, tell: Tell) -> list[Point]:
    """Trials of a few seconds at the guessed depth, at a smaller and at a larger one, while the minute lasts.

    The first may have to compile with a cold cache: it has the preset's own allowance, and the minute starts after it.
    """
    points: list[Point] = []
    second_per_flop = 0.0  # of the whole trial: larger ones take longer
    tell(f"depth {first.depth} first; it may compile for up to {first.startup_seconds:g} s, then the minute starts")
    begun = time.monotonic()
    for depth in dict.fromkeys((first.depth, max(scaling.LEAST_DEPTH, first.depth * 2 // 3), first.depth * 3 // 2)):
        start = time.monotonic()
        left = MOST_SECONDS - (start - begun)
        shaped = _to_measure(dataclasses.replace(first, depth=depth))
        if points:
            if left < second_per_flop * cost.flops_per_token(shaped):
                tell(f"depth {depth} is not measured: the minute would be over")
                continue
            shaped = dataclasses.replace(shaped, startup_seconds=max(1.0, min(left, shaped.startup_seconds)))
            trial = _trial(shaped, dataset)
        else:
            shaped, trial = _first_trial(shaped, dataset, device, tell)
            begun = time.monotonic() - (trial.wall_seconds - trial.startup_seconds)
        second_per_flop = max(second_per_flop, (time.monotonic() - start) / cost.flops_per_token(shaped))
        if trial.verdict != "scored":
            tell(f"depth {depth} is not measured: {trial.reason}")
            continue
        points.append(Point(preset=shaped, trial=trial))
        tell(_told(points[-1]))
    return points


def _first_trial(shaped: Preset, dataset: Dataset, device: Device, tell: Tell) -> tuple[Preset, Trial]:
    """The trial that decides whether the device can train; with fewer rows where memory did not suffice."""
    trial = _trial(shaped, dataset)
    if trial.verdict != "scored" and (
        backends.get(shaped.backend).out_of_memory(trial.reason) or trial.reason == KILLED
    ):
        tell(f"depth {shaped.depth}: {trial.reason}; once more with a quarter of the rows")
        shaped = dataclasses.replace(shaped, device_batch_size=max(1, shaped.device_batch_size // 4))
        trial = _trial(shaped, dataset)
    if trial.verdict == "scored":
        return shaped, trial
    told = f"--preset auto could not train on {device.name}: {trial.reason}"
    if trial.steps == 0 and trial.startup_seconds >= shaped.startup_seconds:
        more = round(2 * shaped.startup_seconds)
        raise StartupTimeout(
            f"{told}. --set startup_seconds={more} gives it more; --device cpu leaves it; --preset NAME takes a preset "
            "unmeasured"
        )
    raise UserError(f"{told}. `autoresearch doctor` tells what is here; --preset NAME takes a preset unmeasured")


def _trial(shaped: Preset, dataset: Dataset) -> Trial:
    return lone_trial(reference_trainer(shaped), shaped, dataset, budget=Budget(steps=TRIAL_STEPS), seed=1).record


def _to_measure(preset: Preset) -> Preset:
    """The preset with a corpus that needs no network, and little of it to score."""
    return dataclasses.replace(preset, corpus=MEASURED_CORPUS, score_bytes=SCORED_BYTES)


def _told(point: Point) -> str:
    trial = point.trial
    return (
        f"depth {point.preset.depth}: {trial.tokens_per_second:,.0f} tokens/s, {point.flops / 1e12:.3g} TFLOP/s, "
        f"{(trial.peak_memory_mb or 0) / 1024:.2f} GB with {point.preset.device_batch_size} rows at once, "
        f"start-up {trial.startup_seconds:.1f} s"
    )


def _as_seen(device: Device, trial: Trial) -> Device:
    """The device with the kernel and the dtype that its trainer took: what was assumed before may differ from both."""
    kernel = trial.choices.get("kernel", "").partition(" (")[0]
    dtype = trial.choices.get("dtype", "").partition(" (")[0]
    return dataclasses.replace(
        device,
        kernel=kernel if kernel in estimates.UTILIZATION else device.kernel,
        dtype=dtype if dtype in cost.BYTES else device.dtype,
    )


@dataclass(frozen=True)
class _Here:
    """A device of this machine as its driver tells it."""

    name: str
    memory_gb: float
    driver: str = ""


def _devices() -> list[tuple[str, list[_Here]]]:
    """Each kind of device with those here in the driver's order. The kind of the largest first, the processor last."""
    found: dict[str, list[_Here]] = {}
    for one in hardware.accelerators():
        found.setdefault(one.kind, []).append(_Here(one.name, one.memory_gb, one.driver))
    kinds = sorted(found.items(), key=lambda kind: -max(one.memory_gb for one in kind[1]))
    return [*kinds, ("cpu", [_Here(hardware.processor(), hardware.memory_mb() / 1024)])]


def _placed(here: list[_Here], backend: str, place: str) -> _Here | None:
    """Which of the devices of one kind a backend means by its name; None if there is no such one.

    A framework may count in another order than the driver, so of unequal devices the framework is asked for the name.
    """
    index = place.partition(":")[2]
    if not index:
        return max(here, key=lambda one: one.memory_gb)
    if not index.isdecimal() or int(index) >= len(here):
        return None
    if len(set(here)) == 1:
        return here[0]
    name = probe(backend, place).get("device_name")
    return next((one for one in here if one.name == name), here[int(index)])


def _fingerprint(device: Device, place: str, here: _Here) -> str:
    """What a measurement holds for: the device, its driver, the framework, the trainer and the rule's anchors."""
    try:
        version = metadata.version(device.backend)
    except metadata.PackageNotFoundError:
        version = ""
    trainer = fingerprint(backends.trainer_path(device.backend).read_text(encoding="utf-8"))
    anchors = presets.anchors()
    numbers = (presets.dump(anchors.h100), presets.dump(anchors.cpu))
    machine = (here.name, round(device.memory_gb), here.driver, hardware.cores())
    return digest(*machine, device.backend, place, version, trainer, numbers)[:16]
