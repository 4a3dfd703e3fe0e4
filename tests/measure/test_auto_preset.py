"""`--preset auto`: which device is found, what is measured there, and what the rule makes of it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import pytest
from campaigns import a_trial
from rights import as_nobody

import backends
import presets
from core.data import Dataset
from core.measure import auto_preset, doctor
from core.records import Preset, Trial, UserError
from core.system import accelerators, hardware
from core.system.accelerators import Accelerator, Kind
from presets import cost, devices
from presets import estimate as estimates
from presets.scaling import LEAST_DEPTH

RTX4090 = Accelerator(name="NVIDIA GeForce RTX 4090", kind="cuda", memory_gb=24, free_gb=23.0, driver="580.1")
UNKNOWN = Accelerator(name="Imaginary 9000", kind="cuda", memory_gb=48, free_gb=47.0, driver="1")
Measure = Callable[[Preset], Trial]


def measured(
    flops: float, memory_factor: float = 1.0, kernel: str = "flex (windows)", dtype: str = "bfloat16 (native)"
) -> Measure:
    """Trials on a device that reaches so many FLOP/s whatever the shape."""

    def trial(preset: Preset) -> Trial:
        estimate = cost.memory_gb(preset, "sdpa", "bfloat16", compiled=True)
        return a_trial(
            val_bpb=2.0,
            tokens_per_second=flops / cost.flops_per_token(preset),
            flops_per_token=cost.flops_per_token(preset),
            peak_memory_mb=memory_factor * estimate * 1e9 / 2**20,
            choices={"kernel": kernel, "dtype": dtype},
        )

    return trial


class Machine:
    """A machine with these accelerators, on which every framework is installed but those that `lacks` names."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.told: list[str] = []
        self.tried: list[Preset] = []
        self._patch = patch
        self.lacks: dict[str, str] = {}
        for name in backends.names():
            patch.setattr(backends.get(name), "missing", lambda name=name: self.lacks.get(name))
        patch.setattr(hardware, "matrix_flops", lambda: 2e11)
        self.load: list[doctor.Diagnosis] = []
        patch.setattr(doctor, "examine_load", lambda here: doctor.Report(preset="", diagnoses=self.load))
        self.has()

    def has(self, *found: Accelerator) -> None:
        self._patch.setattr(accelerators, "accelerators", lambda: found)

    def measures(self, trial: Measure) -> None:
        def run(preset: Preset, dataset: object) -> Trial:
            self.tried.append(preset)
            return trial(preset)

        self._patch.setattr(auto_preset, "_trial", run)

    def preset(self, changes: Mapping[str, str] | None = None, *, again: bool = False) -> Preset:
        return auto_preset.preset(changes or {}, prepare=self._prepare, tell=self.told.append, again=again)[0]

    def _prepare(self, preset: Preset) -> Dataset:
        assert preset.corpus == "apidocs", "what is measured needs no network"
        return cast(Dataset, None)  # the trials here are made up


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, fresh_cache: Path) -> Machine:
    return Machine(monkeypatch)


def test_a_known_device_gets_what_the_rule_makes_of_its_measured_speed(machine: Machine) -> None:
    machine.has(RTX4090)
    estimated = estimates.sustained_flops(devices.named("rtx4090"))
    machine.measures(measured(estimated))
    preset = machine.preset()
    by_facts = presets.load("rtx4090")
    assert dataclasses.replace(preset, name="rtx4090") == by_facts
    assert [one.depth for one in machine.tried] == [7, 4, 10]  # the guess, a smaller and a larger model
    machine.measures(measured(estimated / 100))
    slower = machine.preset(again=True)
    assert cost.flops_per_token(slower) < 0.2 * cost.flops_per_token(by_facts)
    assert estimates.estimate(slower, devices.named("rtx4090"), flops=estimated / 100).warnings() == []


def test_what_was_measured_is_kept_for_this_device_alone(machine: Machine) -> None:
    machine.has(RTX4090)
    machine.measures(measured(5e13))
    first = machine.preset()
    machine.tried.clear()
    assert machine.preset() == first
    assert machine.tried == []
    assert "measured before" in machine.told[-1]
    machine.preset(again=True)
    assert machine.tried
    machine.tried.clear()
    machine.has(dataclasses.replace(RTX4090, driver="590.2"))
    machine.preset()
    assert machine.tried, "another driver may be faster"


def test_a_cache_that_takes_nothing_is_told_before_the_minute_and_costs_nothing(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.has(RTX4090)
    machine.measures(measured(5e13))
    with as_nobody() as folder:
        monkeypatch.setenv("AUTORESEARCH_CACHE", str(folder / "cache"))
        folder.chmod(0o500)
        preset = machine.preset()
        (line,) = [line for line in machine.told if "kept" in line]
        assert line.startswith("warning: preset auto: the result holds for this command alone")
        assert f"{folder / 'cache'}: permission denied; it is in the cache: mend that, or choose" in line
        assert machine.told.index(line) < next(place for place, one in enumerate(machine.told) if "depth" in one)
        folder.chmod(0o700)
        assert machine.preset() == preset
        assert list((folder / "cache" / "auto").iterdir())


def test_more_memory_than_estimated_means_fewer_rows_at_once(machine: Machine) -> None:
    machine.has(RTX4090)
    machine.measures(measured(5e13))
    usual = machine.preset()
    machine.measures(measured(5e13, memory_factor=4.0))
    hungry = machine.preset(again=True)
    assert hungry.device_batch_size < usual.device_batch_size
    assert hungry.total_batch_size == usual.total_batch_size


def test_an_unknown_device_is_tried_with_the_numbers_of_one_like_it(machine: Machine) -> None:
    machine.has(UNKNOWN)
    machine.measures(measured(1e14, kernel="flex (windows)"))
    preset = machine.preset()
    assert (preset.backend, preset.device) == ("torch", "cuda")
    assert "Imaginary 9000: torch on cuda, not in devices.toml" in machine.told[0]
    assert preset.peak_tflops is None, "nobody knows it"
    # 1e14 FLOP/s lie between a 3090's and an H100's.
    assert presets.load("rtx3090").depth <= preset.depth <= presets.load("h100").depth
    assert "WINDOW_PATTERN" not in preset.constants, "flex was seen, so windows pay"


@pytest.mark.parametrize("name", ["NVIDIA GeForce RTX 4080", "NVIDIA GeForce RTX 5080", "AMD Radeon RX 9070 XT"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_a_card_of_16_gb_is_no_t4(machine: Machine, name: str, dtype: str) -> None:
    """Whose facts it starts from: of the dtypes that the card's trainer may choose, a T4 has no bfloat16."""
    kind: Kind = "rocm" if name.startswith("AMD") else "cuda"
    machine.has(Accelerator(name=name, kind=kind, memory_gb=16, free_gb=None, driver="1"))
    machine.measures(measured(3e13, dtype=f"{dtype} (seen)"))
    preset = machine.preset()
    assert (preset.device, preset.peak_tflops) == ("cuda", None)


@pytest.mark.parametrize(
    ("backend", "name", "kernel", "dtype", "windows", "peak"),
    [
        ("jax", "NVIDIA H100 80GB HBM3", "cudnn", "bfloat16", True, 989.5),
        ("jax", "NVIDIA H100 80GB HBM3", "xla", "bfloat16", False, 989.5),
        ("torch", "NVIDIA H100 80GB HBM3", "sdpa", "bfloat16", False, 989.5),  # no FlashAttention, no Triton
        ("jax", "Tesla T4", "xla", "float32", False, 8.1),
    ],
)
def test_what_the_trainer_chose_counts(
    machine: Machine, backend: str, name: str, kernel: str, dtype: str, windows: bool, peak: float
) -> None:
    machine.has(Accelerator(name=name, kind="cuda", memory_gb=80, free_gb=None, driver="1"))
    machine.measures(measured(3e14, kernel=f"{kernel} (seen)", dtype=f"{dtype} (seen)"))
    preset = machine.preset({"backend": backend})
    assert (preset.backend, preset.peak_tflops) == (backend, peak)
    assert ("WINDOW_PATTERN" not in preset.constants) is windows, "windows pay where a kernel keeps no scores"


def test_one_of_several_devices_can_be_asked_for(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.has(RTX4090, RTX4090)
    machine.measures(measured(5e13))
    preset = machine.preset({"device": "cuda:1"})
    assert preset.device == "cuda:1"
    assert {one.device for one in machine.tried} == {"cuda:1"}
    with pytest.raises(UserError, match="no device for device cuda:2"):
        auto_preset.find({"device": "cuda:2"})
    # The driver's order need not be the framework's: which of unequal cards is meant, the framework tells.
    machine.has(UNKNOWN, RTX4090)
    monkeypatch.setattr(auto_preset, "probe", lambda backend, device: {"device_name": UNKNOWN.name})
    assert auto_preset.find({"device": "cuda:1"})[0].device.name == UNKNOWN.name


def test_what_other_work_slowed_is_told_and_kept_only_while_it_runs(machine: Machine) -> None:
    machine.has(RTX4090)
    machine.measures(measured(5e13))
    machine.load = [
        doctor.Diagnosis(subject="load", status="warning", message="1.9 of 2 cores in use: a\x07thief (7) 1.9")
    ]
    _, text = auto_preset.preset({}, prepare=lambda preset: cast(Dataset, None), tell=machine.told.append)
    assert "# other work may have slowed the measurement: 1.9 of 2 cores in use: athief (7) 1.9\n" in text
    assert presets.parse(text).name == "auto"
    assert "kept for as long as other work runs" in machine.told[-1]
    machine.tried.clear()
    assert machine.preset() == presets.parse(text)
    assert not machine.tried, "the machine is as busy as before"
    assert "beside other work as there is now: 1.9 of 2 cores" in machine.told[-2]
    machine.preset(again=True)
    assert machine.tried
    machine.load = []
    machine.tried.clear()
    machine.preset()
    assert machine.tried, "it is measured again, and that is kept"
    machine.tried.clear()
    machine.preset()
    assert not machine.tried


def late(preset: Preset) -> Trial:
    """A trial that compiled until its allowance was spent."""
    reason = f"no batch was asked for within the start-up allowance of {preset.startup_seconds:g} s"
    return a_trial(verdict="crash", reason=reason, val_bpb=None, steps=0, startup_seconds=preset.startup_seconds + 0.1)


def test_a_cold_compile_has_its_allowance_beside_the_minute(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.has(RTX4090)
    seconds = 0.0

    def cold(preset: Preset) -> Trial:
        nonlocal seconds
        startup = 100.0 if len(machine.tried) == 1 else 5.0
        seconds += startup + 4.0
        trial = measured(5e13)(preset)
        return dataclasses.replace(trial, startup_seconds=startup, wall_seconds=startup + 4.0)

    machine.measures(cold)
    monkeypatch.setattr(time, "monotonic", lambda: seconds)
    machine.preset()
    assert machine.tried[0].startup_seconds == presets.load("rtx4090").startup_seconds == 300
    assert all(one.startup_seconds < 60 for one in machine.tried[1:])
    assert "may compile for up to 300 s, then the minute starts" in " ".join(machine.told)


def test_a_start_up_that_takes_too_long_leads_to_no_smaller_model_and_to_no_processor(machine: Machine) -> None:
    machine.has(RTX4090)
    machine.lacks["jax"] = "no jax"
    machine.measures(late)
    with pytest.raises(UserError, match=r"allowance of 300 s. --set startup_seconds=600 gives it more time"):
        machine.preset()
    assert len(machine.tried) == 1
    machine.tried.clear()
    with pytest.raises(UserError, match="allowance of 600 s"):
        machine.preset({"startup_seconds": "600"})
    assert [one.startup_seconds for one in machine.tried] == [600]


def test_a_trainer_that_breaks_is_not_tried_with_fewer_rows(machine: Machine) -> None:
    machine.has(RTX4090)
    broken = a_trial(verdict="crash", reason="RuntimeError: no kernel image is available", val_bpb=None, steps=0)
    machine.measures(lambda preset: broken)
    with pytest.raises(UserError, match="no kernel image"):
        machine.preset({"device": "cuda", "backend": "torch"})
    assert len(machine.tried) == 1


def test_a_device_that_cannot_train_is_passed_over_and_that_is_told(machine: Machine) -> None:
    machine.has(RTX4090)

    def trial(preset: Preset) -> Trial:
        if preset.device == "cuda":
            return a_trial(verdict="crash", reason="OutOfMemoryError", val_bpb=None)
        return measured(1e11)(preset)

    machine.measures(trial)
    preset = machine.preset()
    assert (preset.backend, preset.device) == ("torch", "cpu")
    rows = [one.device_batch_size for one in machine.tried if one.device == "cuda"][:2]
    assert rows[1] == rows[0] // 4
    assert any("skipping this device" in line and "OutOfMemoryError" in line for line in machine.told)


def test_a_backend_that_is_not_installed_is_passed_over(machine: Machine) -> None:
    machine.has(Accelerator(name="Apple M4 Max", kind="apple", memory_gb=64, free_gb=None, driver=""))
    found = auto_preset.find({})[0]
    assert (found.device.backend, found.device.memory_gb) == ("mlx", 64)
    machine.lacks["mlx"] = "MLX is not installed"
    assert next((one.device.backend, one.device.device) for one in auto_preset.find({})) == ("torch", "mps")
    machine.lacks.update(torch="no torch", jax="no jax")
    with pytest.raises(UserError, match=r"no device.*MLX is not installed.*no torch.*autoresearch doctor"):
        auto_preset.find({})


def test_what_is_asked_for_narrows_the_choice(machine: Machine) -> None:
    machine.has(RTX4090)
    assert auto_preset.find({"device": "cpu"})[0].device.device == "cpu"
    assert auto_preset.find({"backend": "jax"})[0].device.backend == "jax"
    with pytest.raises(UserError, match="for device mps"):
        auto_preset.find({"device": "mps"})


def test_the_minute_ends(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.has(RTX4090)
    seconds = 0.0
    trial = measured(5e13)

    def slow(preset: Preset) -> Trial:
        nonlocal seconds
        seconds += 40.0
        return trial(preset)

    machine.measures(slow)
    monkeypatch.setattr(time, "monotonic", lambda: seconds)
    machine.preset()
    assert len(machine.tried) == 2  # the second model is smaller and still fits the minute by its FLOP
    assert any("there is no time left" in line for line in machine.told)


@pytest.mark.long
def test_this_machine_gets_a_preset_that_means_something(fresh_cache: Path) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed: uv pip install 'autoresearch[torch]'")
    from core.cli.resolve import dataset_of

    told: list[str] = []
    preset, text = auto_preset.preset({"device": "cpu"}, prepare=dataset_of, tell=told.append)
    assert presets.parse(text) == preset
    assert preset.backend == "torch"
    assert "tokens/s" in text and "estimate: " in text
    # Other tests may keep the processor so busy that no depth means anything: then it is the least one, and says so.
    assert "warning" not in text or preset.depth == LEAST_DEPTH
