"""`--preset auto`: finds this machine's device, measures it for a minute, and applies the presets' rule to the result.

What was found is kept in the cache under the device's fingerprint, so that the minute is spent once.
"""

from __future__ import annotations

import dataclasses
import datetime
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import backends
import presets
from core import hardware
from core.agents import tunables
from core.campaign import reference_trainer
from core.data.cache import cache_root, digest, replacing
from core.records import Budget, Preset, Trial, UserError
from presets import cost, devices, meaning, rule
from presets.devices import Device

if TYPE_CHECKING:
    from core.data import Dataset

NAME = "auto"
MOST_SECONDS = 60.0  # of measuring; the corpus is prepared before
TRIAL_STEPS = 6
MEASURED_CORPUS, SCORED_BYTES = "apidocs", 20_000  # speed depends on no text, so the one that needs no network
Tell = Callable[[str], None]
Prepare = Callable[[Preset], "Dataset"]


@dataclass(frozen=True, kw_only=True)
class Found:
    """The device to train on, and why it."""

    device: Device
    known: bool  # its facts are in devices.toml
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
        estimate = cost.memory_gb(self.preset, device.kernel, device.dtype, compiled=meaning.is_compiled(device))
        return max(1.0, (self.trial.peak_memory_mb or 0.0) * 2**20 / 1e9 / estimate)


def find(changes: Mapping[str, str]) -> list[Found]:
    """The devices of this machine that a preset could be for, best first; `changes` may name backend or device.

    UserError if there is none that an installed backend drives.
    """
    found, lacking = [], []
    for kind, name, memory_gb, driver in _devices():
        for backend, device in devices.DRIVERS[kind]:
            asked = changes.get("device", "auto")
            if changes.get("backend", backend) != backend or asked not in ("auto", device):
                continue
            if reason := backends.get(backend).missing():
                lacking.append(reason)
                continue
            facts, known = devices.like(kind, name, memory_gb, backend, device)
            if kind == "cpu":
                facts = dataclasses.replace(facts, tflops={facts.dtype: hardware.matrix_flops() / 1e12})
            told = f"{name}: {backend} on {device}" + ("" if known else ", not in devices.toml")
            fingerprint = _fingerprint(facts, name, driver)
            found.append(Found(device=facts, known=known, fingerprint=fingerprint, told=told))
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
    for found in candidates:
        tell(f"preset {NAME}: {found.told}")
        if not again and (text := kept(found)) is not None:
            tell(f"preset {NAME}: measured before; `autoresearch presets {NAME} --again` measures anew")
            return presets.parse(text), text
        try:
            text = _measured(found, prepare, tell)
        except UserError as error:
            if found is candidates[-1]:
                raise
            tell(f"preset {NAME}: not on this one: {error}")
            continue
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
    return rule.scaled(found.device, presets.anchors(), name=NAME)


def _path(found: Found) -> Path:
    return cache_root() / NAME / f"{found.fingerprint}.toml"


def _measured(found: Found, prepare: Prepare, tell: Tell) -> str:
    device, anchors, chosen = found.device, presets.anchors(), guess(found)
    dataset = prepare(_to_measure(chosen))
    begun = time.monotonic()
    points = _points(chosen, dataset, device, begun, tell)
    device = _as_seen(device, points[0].trial, found.known)
    for _ in range(2):  # the depth that is chosen decides which measurement counts
        nearest = min(points, key=lambda point: abs(point.preset.depth - chosen.depth))
        measured = rule.Measured(flops=nearest.flops, memory_factor=nearest.memory_factor(device))
        chosen = rule.scaled(device, anchors, measured, name=NAME)
    estimate = meaning.estimate(chosen, device, flops=measured.flops)
    share = measured.memory_factor * estimate.memory_gb / device.usable_gb
    estimate = dataclasses.replace(estimate, memory_share=share)
    spent = time.monotonic() - begun
    estimated = (
        f"estimate: {estimate.steps:.0f} steps, {estimate.tokens_per_parameter:.1f} tokens a parameter, "
        f"{share:.0%} of the memory, {estimate.overhead_share:.0%} of the wall time for start-up and scoring"
    )
    lines = [
        f"# {NAME}: measured on {datetime.datetime.now(datetime.UTC).date()} in {spent:.0f} s on {found.told}",
        *(f"# {_told(point)}" for point in points),
        f"# {estimated}",
        *(f"# doubt: {doubt}" for doubt in estimate.doubts()),
    ]
    tell(estimated)
    for doubt in estimate.doubts():
        tell(f"doubt: {doubt}")
    return "\n".join(lines) + "\n" + presets.dump(chosen)


def _points(first: Preset, dataset: Dataset, device: Device, begun: float, tell: Tell) -> list[Point]:
    """Trials of a few seconds at the guessed depth, at a smaller and at a larger one, while the minute lasts."""
    points: list[Point] = []
    second_per_flop = 0.0  # of the whole trial: larger ones take longer
    for depth in dict.fromkeys((first.depth, max(rule.LEAST_DEPTH, first.depth * 2 // 3), first.depth * 3 // 2)):
        start = time.monotonic()
        left = MOST_SECONDS - (start - begun)
        shaped = _to_measure(dataclasses.replace(first, depth=depth, startup_seconds=max(left, 1.0)))
        if left < second_per_flop * cost.flops_per_token(shaped):
            tell(f"depth {depth} is not measured: the minute would be over")
            continue
        trial = _trial(shaped, dataset)
        if trial.verdict != "scored" and not points:
            tell(f"depth {depth}: {trial.reason}; once more with a quarter of the rows")
            shaped = dataclasses.replace(shaped, device_batch_size=max(1, shaped.device_batch_size // 4))
            trial = _trial(shaped, dataset)
            if trial.verdict != "scored":
                raise UserError(
                    f"--preset auto could not train on {device.name}: {trial.reason}. `autoresearch doctor` tells what "
                    "is here; --preset NAME takes a preset unmeasured"
                )
        second_per_flop = max(second_per_flop, (time.monotonic() - start) / cost.flops_per_token(shaped))
        if trial.verdict != "scored":
            tell(f"depth {depth} is not measured: {trial.reason}")
            continue
        points.append(Point(preset=shaped, trial=trial))
        tell(_told(points[-1]))
    return points


def _trial(shaped: Preset, dataset: Dataset) -> Trial:
    from core.trial.supervisor import TrialSpec, run_trial

    with tempfile.TemporaryDirectory(prefix="autoresearch-") as temporary:
        path = Path(temporary) / "trainer" / "train.py"
        path.parent.mkdir()
        path.write_text(reference_trainer(shaped), encoding="utf-8", newline="\n")
        spec = TrialSpec(
            trainer=path,
            preset=shaped,
            budget=Budget(steps=TRIAL_STEPS),
            seed=1,
            dataset=dataset,
            into=Path(temporary) / "trial",
        )
        return run_trial(spec)


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


def _as_seen(device: Device, trial: Trial, known: bool) -> Device:
    """The device with the kernel and the dtype that its trainer took, where only that tells them."""
    if known:
        return device
    kernel = trial.choices.get("kernel", device.kernel).partition(" (")[0]
    dtype = trial.choices.get("dtype", device.dtype).partition(" (")[0]
    return dataclasses.replace(device, kernel=kernel, dtype=dtype if dtype in cost.BYTES else device.dtype)


def _devices() -> list[tuple[str, str, float, str]]:
    """Kind, name, memory in GB and driver of each device here: accelerators by memory, then the processor."""
    accelerators = sorted(hardware.accelerators(), key=lambda one: -one.memory_gb)
    found = [(one.kind, one.name, one.memory_gb, one.driver) for one in accelerators]
    return [*found, ("cpu", hardware.processor(), hardware.memory_mb() / 1024, "")]


def _fingerprint(device: Device, name: str, driver: str) -> str:
    """What a measurement holds for: the device, its driver, the framework, the trainer and the rule's anchors."""
    try:
        version = metadata.version(device.backend)
    except metadata.PackageNotFoundError:
        version = ""
    trainer = tunables.fingerprint(backends.trainer_path(device.backend).read_text(encoding="utf-8"))
    anchors = presets.anchors()
    numbers = (presets.dump(anchors.h100), presets.dump(anchors.cpu))
    machine = (name, round(device.memory_gb), driver, hardware.cores())
    return digest(*machine, device.backend, device.device, version, trainer, numbers)[:16]
