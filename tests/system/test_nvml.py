"""An NVIDIA GPU by NVML: a fake library with the names of the real one, which are checked where that is installed."""

from __future__ import annotations

import os
import sys
import time
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from core.system.conditions import Sampler, remarks
from core.system.nvml import NvidiaSensor


class NVMLError(Exception):
    pass


class Fake(ModuleType):
    """Two GPUs and one driver, which has all functions but those in `lacks`."""

    NVML_CLOCK_SM = 1
    NVML_TEMPERATURE_GPU = 0
    NVML_ERROR_NOT_FOUND = 6
    NVMLError = NVMLError

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.names = ["NVIDIA T4", "NVIDIA H100 80GB HBM3"]
        self.reasons = 0
        self.busy = 0
        self.processes: list[Any] = []
        self.lacks: set[str] = set()
        self.opened = 0
        self.called: set[str] = set()

    def _call(self, name: str) -> None:
        self.called.add(name)
        if name in self.lacks:
            raise NVMLError("not supported")

    def nvmlInit(self) -> None:  # noqa: N802
        self._call("nvmlInit")
        self.opened += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self._call("nvmlShutdown")
        self.opened -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        self._call("nvmlDeviceGetCount")
        return len(self.names)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        self._call("nvmlDeviceGetHandleByIndex")
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802
        self._call("nvmlDeviceGetUUID")
        return f"GPU-{'ab'[handle]}000"

    def nvmlDeviceGetName(self, handle: int) -> str:  # noqa: N802
        self._call("nvmlDeviceGetName")
        return self.names[handle]

    def nvmlDeviceGetMaxClockInfo(self, handle: int, kind: int) -> int:  # noqa: N802
        self._call("nvmlDeviceGetMaxClockInfo")
        return (1590, 1980)[handle]

    def nvmlDeviceGetClockInfo(self, handle: int, kind: int) -> int:  # noqa: N802
        self._call("nvmlDeviceGetClockInfo")
        return 1200

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:  # noqa: N802
        self._call("nvmlDeviceGetUtilizationRates")
        return SimpleNamespace(gpu=self.busy, memory=0)

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: int) -> int:  # noqa: N802
        self._call("nvmlDeviceGetCurrentClocksEventReasons")
        return self.reasons

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: int) -> int:  # noqa: N802
        self._call("nvmlDeviceGetCurrentClocksThrottleReasons")
        return self.reasons

    def nvmlDeviceGetTemperatureV(self, handle: int, sensor: int) -> int:  # noqa: N802
        self._call("nvmlDeviceGetTemperatureV")
        return 71

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:  # noqa: N802
        self._call("nvmlDeviceGetTemperature")
        return 70

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:  # noqa: N802
        self._call("nvmlDeviceGetPowerUsage")
        return 412_000

    def nvmlDeviceGetProcessUtilization(self, handle: int, since: int) -> list[Any]:  # noqa: N802
        self._call("nvmlDeviceGetProcessUtilization")
        if not (found := [one for one in self.processes if one.timeStamp > since]):
            raise NVMLError("not found")
        return found


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Fake:
    fake = Fake()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return fake


def used(pid: int, share: int, at: int) -> Any:
    return SimpleNamespace(pid=pid, smUtil=share, timeStamp=at, memUtil=0, encUtil=0, decUtil=0)


def test_a_gpu_tells_its_clock_heat_and_power(nvml: Fake) -> None:
    nvml.busy = 30
    gpu = NvidiaSensor(1, "NVIDIA H100 80GB HBM3")
    assert gpu.once() == {"clock_max_mhz": 1980.0, "busy_before": 0.3}
    got = gpu.sample()
    assert got == {
        "clock_mhz": 1200.0, "throttled": 0.0, "power_capped": 0.0, "temperature_c": 71.0, "power_w": 412.0,
    }  # fmt: skip
    gpu.close()
    assert nvml.opened == 0


@pytest.mark.parametrize(
    ("reason", "throttled", "capped"),
    [
        ("None", 0, 0), ("GpuIdle", 0, 0), ("ApplicationsClocksSetting", 0, 0), ("SwPowerCap", 0, 1),
        ("HwSlowdown", 1, 0), ("SyncBoost", 0, 0), ("SwThermalSlowdown", 1, 0), ("HwThermalSlowdown", 1, 0),
        ("HwPowerBrakeSlowdown", 1, 0), ("DisplayClockSetting", 0, 0),
    ],
)  # fmt: skip
def test_heat_and_brakes_are_trouble_and_the_power_cap_is_not(
    nvml: Fake, reason: str, throttled: int, capped: int
) -> None:
    bits = {
        "None": 0, "GpuIdle": 1, "ApplicationsClocksSetting": 2, "SwPowerCap": 4, "HwSlowdown": 8, "SyncBoost": 16,
        "SwThermalSlowdown": 32, "HwThermalSlowdown": 64, "HwPowerBrakeSlowdown": 128, "DisplayClockSetting": 256,
    }  # fmt: skip
    nvml.reasons = bits[reason]
    got = NvidiaSensor(0, "").sample()
    assert (got["throttled"], got["power_capped"]) == (throttled, capped)


def test_older_drivers_know_older_names(nvml: Fake) -> None:
    nvml.lacks = {"nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetTemperatureV"}
    nvml.reasons = 0x40
    got = NvidiaSensor(0, "").sample()
    assert (got["throttled"], got["temperature_c"]) == (1.0, 70.0)


@pytest.mark.parametrize("lacking", ["nvmlDeviceGetClockInfo", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetUUID"])
def test_what_a_driver_does_not_tell_is_left_out(nvml: Fake, lacking: str) -> None:
    nvml.lacks = {lacking, "nvmlDeviceGetProcessUtilization"}
    sampler = Sampler("cuda", "NVIDIA T4")
    sampler.start()
    time.sleep(0.1)  # several ticks of the processors' counters
    got = sampler.stop()
    assert "host_other_load" in got
    assert ("power_w" in got) == (lacking == "nvmlDeviceGetClockInfo")
    assert ("clock_mhz" in got) == (lacking == "nvmlDeviceGetPowerUsage")
    assert nvml.opened == 0


def test_other_processes_are_those_outside_this_tree(nvml: Fake) -> None:
    nvml.processes = [used(os.getpid(), 99, 1)]
    gpu = NvidiaSensor(0, "")
    gpu.once()  # what was before the trial is not counted
    assert "other_load" not in gpu.sample()
    nvml.processes += [used(os.getpid(), 60, 2), used(1, 20, 2), used(1, 40, 3)]
    assert gpu.sample()["other_load"] == pytest.approx(0.3)
    nvml.processes += [used(os.getpid(), 95, 4)]
    assert gpu.sample()["other_load"] == 0.0
    # In a container the driver names processes by numbers that mean nothing there: nothing is claimed.
    nvml.processes += [used(2**22 + 7, 95, 5)]
    assert "other_load" not in gpu.sample()


@pytest.mark.parametrize(
    ("visible", "index", "name", "most"),
    [
        (None, 0, "unknown to the driver", 1590),
        (None, 1, "unknown to the driver", 1980),
        (None, 0, "NVIDIA H100 80GB HBM3", 1980),  # CUDA counts the fastest first
        ("1", 0, "unknown to the driver", 1980),
        ("GPU-b", 0, "unknown to the driver", 1980),
        ("1,0", 1, "unknown to the driver", 1590),
    ],
)
def test_the_gpu_is_the_one_that_the_framework_means(
    nvml: Fake, monkeypatch: pytest.MonkeyPatch, visible: str | None, index: int, name: str, most: int
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert NvidiaSensor(index, name).once()["clock_max_mhz"] == most


def test_a_gpu_that_is_not_there_gives_the_library_back(nvml: Fake) -> None:
    with pytest.raises(NVMLError):
        NvidiaSensor(2, "")
    assert nvml.opened == 0


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac has no NVIDIA GPU, and is not asked for one")
def test_a_sampler_finds_it_by_the_backends_name(nvml: Fake) -> None:
    nvml.reasons = 0x20
    sampler = Sampler("cuda:1", "NVIDIA H100 80GB HBM3")
    sampler.start()
    got = sampler.stop()
    assert got["clock_max_mhz"] == 1980.0
    assert remarks(got)[0] == "the device was throttled in 100% of the samples"


def test_without_the_library_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    sampler = Sampler("cuda", "a GPU")
    sampler.start()
    time.sleep(0.1)
    assert "host_other_load" in sampler.stop()


def test_the_names_are_those_of_the_real_library(nvml: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pynvml")
    real: Any = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed: it comes with the torch extra")
    names = [name for name in dir(Fake) if name.startswith("nvml")]
    assert len(names) == 15
    for name in names:
        assert callable(getattr(real, name))
    for name in ("NVML_CLOCK_SM", "NVML_TEMPERATURE_GPU", "NVML_ERROR_NOT_FOUND"):
        assert getattr(real, name) == getattr(Fake, name)
    assert issubclass(real.NVMLError, Exception)
    trouble = ("HwSlowdown", "SwThermalSlowdown", "HwThermalSlowdown", "HwPowerBrakeSlowdown")
    from core.system import nvml as ours

    assert sum(getattr(real, f"nvmlClocksEventReason{name}") for name in trouble) == ours.THROTTLING
    assert real.nvmlClocksEventReasonSwPowerCap == ours.POWER_CAP
    assert {name for name, _ in real.c_nvmlProcessUtilizationSample_t._fields_} >= {"pid", "smUtil", "timeStamp"}
    with pytest.raises((real.NVMLError, OSError)) as raised:
        gpu = NvidiaSensor(99, "")  # no machine has so many; most of those that test have none
        gpu.close()
    assert str(raised.value)
