"""`--preset auto`: finds this machine's device, measures it for a minute, and scales a preset to the result.

The result is kept in the cache under the device's fingerprint, so that the minute is spent once.
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
from core.records import Budget, DeviceName, Preset, Trial, UserError
from core.system import accelerators, hardware
from core.system.accelerators import Accelerator
from core.system.files import cache_root, digest, explained, replacing
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
MOST_SECONDS = 60.0  # of measuring, without the preparation of the corpus and a cold start-up
TRIAL_STEPS = 6
MEASURED_CORPUS, SCORED_BYTES = (
    "apidocs",
    20_000,
)  # speed does not depend on the text, so this one, which needs no network
Tell = Callable[[str], None]
Prepare = Callable[[Preset], "Dataset"]
KILLED = "ended by SIGKILL"  # by a system that ran out of memory


class StartupTimeout(UserError):
    """A trial did not reach its first batch in time. The device may still be able to train."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A device of this machine that a backend can train on."""

    device: Device
    place: str  # the backend's name for it, such as "cuda:1"
    fingerprint: str
    description: str


@dataclass(frozen=True, kw_only=True)
class MeasuredTrial:
    """A trial that was run to measure the device, and its preset."""

    preset: Preset
    trial: Trial

    @property
    def flops(self) -> float:
        """FLOP/s in training."""
        assert self.trial.tokens_per_second and self.trial.flops_per_token
        return self.trial.tokens_per_second * self.trial.flops_per_token

    def memory_factor(self, device: Device) -> float:
        """Peak memory divided by its estimate, at least 1."""
        estimate = cost.memory_gb(self.preset, device.kernel, device.dtype, compiled=estimates.is_compiled(device))
        return max(1.0, (self.trial.peak_memory_mb or 0.0) * 2**20 / 1e9 / estimate)

    def __str__(self) -> str:
        trial = self.trial
        return (
            f"depth {self.preset.depth}: {trial.tokens_per_second:,.0f} tokens/s, {self.flops / 1e12:.3g} TFLOP/s, "
            f"{(trial.peak_memory_mb or 0) / 1024:.2f} GB with {self.preset.device_batch_size} rows at once, "
            f"start-up {trial.startup_seconds:.1f} s"
        )


def find(changes: Mapping[str, str]) -> list[Target]:
    """The devices that an installed backend can use, best first. `changes` may name a backend or a device.

    UserError if there are none.
    """
    found, missing = [], []
    wanted = changes.get("device", "auto")
    for kind, here in _devices():
        for backend, device in devices.DRIVERS[kind]:
            if changes.get("backend", backend) != backend or DeviceName.parse(wanted).kind not in ("auto", device):
                continue
            if reason := backends.get(backend).missing():
                missing.append(reason)
                continue
            place = wanted if DeviceName.parse(wanted).index is not None else device
            if (one := _placed(here, backend, place)) is None:
                continue
            facts = devices.like(kind, one.name, one.memory_gb, backend, device)
            if kind == "cpu":
                facts = dataclasses.replace(facts, tflops={facts.dtype: hardware.matrix_flops() / 1e12})
            description = f"{one.name}: {backend} on {place}" + ("" if facts.known else ", not in devices.toml")
            found.append(
                Target(device=facts, place=place, fingerprint=_fingerprint(facts, place, one), description=description)
            )
    if not found:
        options = " and ".join(f"{key} {changes[key]}" for key in ("backend", "device") if key in changes)
        raise UserError(
            f"--preset auto found no device{f' for {options}' if options else ''} that an installed backend can use"
            f"{': ' + '; '.join(missing) if missing else ''}. `autoresearch doctor` shows what is here"
        )
    return found


def preset(changes: Mapping[str, str], *, prepare: Prepare, tell: Tell, again: bool = False) -> tuple[Preset, str]:
    """The preset for this machine, and its TOML. Measures if there is no result in the cache, or if `again`.

    Passes progress to `tell`, a line each. UserError if nothing here can train.
    """
    targets = find(changes)
    late: StartupTimeout | None = None
    load: list[str] | None = None  # read once, before the measurements add to it
    for target in targets:
        if late is not None and target.device.device == "cpu":
            raise late  # better than a night on the processor because a minute was missing
        tell(f"preset {NAME}: {target.description}")
        if not again and (text := kept(target)) is not None:
            tell(f"preset {NAME}: measured before; `autoresearch presets {NAME} --again` measures again")
            return presets.parse(text), text
        if load is None:
            found = doctor.examine_load(accelerators.accelerators()).diagnoses
            load = [one_line(one.message) for one in found if one.status == "warning"]
        if load and not again and (text := kept(target, beside_work=True)) is not None:
            tell(f"preset {NAME}: measured before, beside other work as there is now: {load[0]}; on a quiet machine")
            tell(f"preset {NAME}: it is measured again, and now with `autoresearch presets {NAME} --again`")
            return presets.parse(text), text
        for line in load:
            tell(f"preset {NAME}: other work may slow the measurement: {line}")
        path = _path(target, beside_work=bool(load))
        refused = _refused(path)
        if refused:  # said before the minute
            tell(
                f"warning: preset {NAME}: the result holds for this command alone, because it can't be kept: {refused}"
            )
        try:
            text = _measured_toml(target, changes, prepare, tell, load)
        except UserError as error:
            if isinstance(error, StartupTimeout) and target.device.known:
                late = error
            if target is targets[-1]:
                raise
            tell(f"preset {NAME}: skipping this device: {error}")
            continue
        if not refused and (refused := _refused(path, text)):
            tell(f"warning: preset {NAME}: the result can't be kept: {refused}")
        if load and not refused:
            tell(f"preset {NAME}: the result is kept for as long as other work runs; a quiet machine is measured again")
        return presets.parse(text), text
    raise AssertionError("the last target returns or raises")


def kept(target: Target, *, beside_work: bool = False) -> str | None:
    """The TOML that was measured for this device before; None if there is none, or if it is damaged.

    `beside_work`: the one that was measured while other processes used the cores.
    """
    try:
        text = _path(target, beside_work).read_text(encoding="utf-8")
        presets.parse(text)
    except (OSError, ValueError, UserError):
        return None
    return text


def guess(target: Target) -> Preset:
    """The preset for the device before anything is measured."""
    return _scaled(target, target.device)


def _refused(path: Path, text: str | None = None) -> str:
    """Why no file can be written to the path; empty if one can. Writes the text; without one, leaves nothing."""
    try:
        with replacing(path if text is not None else path.with_suffix(".probe")) as file:
            file.write((text or "").encode())
        if text is None:
            path.with_suffix(".probe").unlink()
    except OSError as error:
        return str(explained(error, path))
    return ""


def _path(target: Target, beside_work: bool) -> Path:
    return cache_root() / NAME / f"{target.fingerprint}{'-beside-work' if beside_work else ''}.toml"


def _scaled(target: Target, device: Device, measured: scaling.Calibration | None = None) -> Preset:
    preset = scaling.scaled(device, presets.anchors(), measured, name=NAME)
    return dataclasses.replace(preset, device=target.place)


def _measured_toml(target: Target, changes: Mapping[str, str], prepare: Prepare, tell: Tell, load: list[str]) -> str:
    allowance = {key: text for key, text in changes.items() if key == "startup_seconds"}
    chosen = presets.override(guess(target), allowance)
    dataset = prepare(_to_measure(chosen))
    begun = time.monotonic()
    measured = _measure(chosen, dataset, target.device, tell)
    device = _with_choices(target.device, measured[0].trial)
    for _ in range(2):  # the depth that is chosen decides which measurement counts
        nearest = min(measured, key=lambda one: abs(one.preset.depth - chosen.depth))
        calibration = scaling.Calibration(flops=nearest.flops, memory_factor=nearest.memory_factor(device))
        chosen = _scaled(target, device, calibration)
    estimate = estimates.estimate(chosen, device, flops=calibration.flops)
    share = calibration.memory_factor * estimate.memory_gb / device.usable_gb
    estimate = dataclasses.replace(estimate, memory_share=share)
    today, spent = datetime.datetime.now(datetime.UTC).date(), time.monotonic() - begun
    estimated = (
        f"estimate: {estimate.steps:.0f} steps, {estimate.tokens_per_parameter:.1f} tokens a parameter, "
        f"{share:.0%} of the memory, {estimate.overhead_share:.0%} of the wall time for start-up and scoring"
    )
    lines = [
        f"# {NAME}: measured on {today} in {spent:.0f} s on {target.description}",
        *(f"# other work may have slowed the measurement: {line}" for line in load),
        *(f"# {one}" for one in measured),
        f"# {estimated}",
        *(f"# warning: {warning}" for warning in estimate.warnings()),
    ]
    tell(estimated)
    for warning in estimate.warnings():
        tell(f"warning: {warning}")
    return "\n".join(lines) + "\n" + presets.dump(chosen)


def _measure(first: Preset, dataset: Dataset, device: Device, tell: Tell) -> list[MeasuredTrial]:
    """Runs short trials at the guessed depth, a smaller and a larger one, as far as the minute allows.

    The first may compile with a cold cache: it has the preset's own start-up allowance, and the minute starts after it.
    """
    measured: list[MeasuredTrial] = []
    second_per_flop = 0.0  # of a whole trial
    tell(f"depth {first.depth} first; it may compile for up to {first.startup_seconds:g} s, then the minute starts")
    begun = time.monotonic()
    for depth in dict.fromkeys((first.depth, max(scaling.LEAST_DEPTH, first.depth * 2 // 3), first.depth * 3 // 2)):
        start = time.monotonic()
        left = MOST_SECONDS - (start - begun)
        shaped = _to_measure(dataclasses.replace(first, depth=depth))
        if measured:
            if left < second_per_flop * cost.flops_per_token(shaped):
                tell(f"depth {depth} is not measured: there is no time left")
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
        measured.append(MeasuredTrial(preset=shaped, trial=trial))
        tell(str(measured[-1]))
    return measured


def _first_trial(shaped: Preset, dataset: Dataset, device: Device, tell: Tell) -> tuple[Preset, Trial]:
    """Runs the first trial, with fewer rows if memory ran out. UserError if the device can't train."""
    trial = _trial(shaped, dataset)
    if trial.verdict != "scored" and (
        backends.get(shaped.backend).out_of_memory(trial.reason) or trial.reason == KILLED
    ):
        tell(f"depth {shaped.depth}: {trial.reason}; trying a quarter of the rows")
        shaped = dataclasses.replace(shaped, device_batch_size=max(1, shaped.device_batch_size // 4))
        trial = _trial(shaped, dataset)
    if trial.verdict == "scored":
        return shaped, trial
    problem = f"--preset auto could not train on {device.name}: {trial.reason}"
    if trial.steps == 0 and trial.startup_seconds >= shaped.startup_seconds:
        more = round(2 * shaped.startup_seconds)
        raise StartupTimeout(
            f"{problem}. --set startup_seconds={more} gives it more time; --device cpu uses the processor; "
            "--preset NAME takes a preset without measuring"
        )
    raise UserError(
        f"{problem}. `autoresearch doctor` shows what is here; --preset NAME takes a preset without measuring"
    )


def _trial(shaped: Preset, dataset: Dataset) -> Trial:
    return lone_trial(reference_trainer(shaped), shaped, dataset, budget=Budget(steps=TRIAL_STEPS), seed=1)[0]


def _to_measure(preset: Preset) -> Preset:
    """The preset with a corpus that needs no network, of which little is scored."""
    return dataclasses.replace(preset, corpus=MEASURED_CORPUS, score_bytes=SCORED_BYTES)


def _with_choices(device: Device, trial: Trial) -> Device:
    """The device with the kernel and the dtype that its trainer chose, which may differ from the assumed ones."""
    kernel = trial.choice("kernel")
    dtype = trial.choice("dtype")
    return dataclasses.replace(
        device,
        kernel=kernel if kernel in estimates.UTILIZATION else device.kernel,
        dtype=dtype if dtype in cost.BYTES else device.dtype,
    )


def _devices() -> list[tuple[str, list[Accelerator]]]:
    """The devices here by kind, in the driver's order: the kind with the largest device first, the processor last."""
    found: dict[str, list[Accelerator]] = {}
    for one in accelerators.accelerators():
        found.setdefault(one.kind, []).append(one)
    kinds = sorted(found.items(), key=lambda kind: -max(one.memory_gb for one in kind[1]))
    return [*kinds, ("cpu", [_processor()])]


def _processor() -> Accelerator:
    """The processor as a device: all of the machine's memory is its own."""
    memory = hardware.memory_mb() / 1024
    return Accelerator(name=hardware.processor(), kind="cpu", memory_gb=memory, free_gb=None, driver="")


def _placed(here: list[Accelerator], backend: str, place: str) -> Accelerator | None:
    """The device of one kind that a backend calls `place`; None if there is none.

    A framework may count devices in another order than the driver, so if they differ the framework names the device.
    """
    index = DeviceName.parse(place).index
    if index is None:
        return max(here, key=lambda one: one.memory_gb)
    if index >= len(here):
        return None
    if len({(one.name, one.memory_gb) for one in here}) == 1:
        return here[0]
    name = probe(backend, place).get("device_name")
    return next((one for one in here if one.name == name), here[index])


def _fingerprint(device: Device, place: str, here: Accelerator) -> str:
    """A hash of what a measurement depends on: device, driver, framework, trainer, and the presets it scales from."""
    try:
        version = metadata.version(device.backend)
    except metadata.PackageNotFoundError:
        version = ""
    trainer = fingerprint(backends.trainer_path(device.backend).read_text(encoding="utf-8"))
    anchors = presets.anchors()
    numbers = (presets.dump(anchors.h100), presets.dump(anchors.cpu))
    machine = (here.name, round(device.memory_gb), here.driver, hardware.cores())
    return digest(*machine, device.backend, place, version, trainer, numbers)[:16]
