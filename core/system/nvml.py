"""Reads an NVIDIA GPU's clocks, throttling, temperature, power and load of others, by NVML through nvidia-ml-py."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

import psutil

from core.system.accelerators import visible

# Reasons for a lower clock that count as throttling: hardware slowdown, software and hardware thermal slowdown, power
# brake (nvml.h, nvmlClocksEventReason*). The power cap is the usual state of a GPU at work, so it is recorded apart.
THROTTLING = 0x08 | 0x20 | 0x40 | 0x80
POWER_CAP = 0x04


class NvidiaSensor:
    """Reads the GPU with this index and name, as the framework gives them.

    Raises NVMLError where there is no driver or no such device, ImportError without nvidia-ml-py.
    """

    def __init__(self, index: int, name: str) -> None:
        self._nvml: Any = import_module("pynvml")
        self._nvml.nvmlInit()
        try:
            self._handle = self._find(index, name)
        except BaseException:
            self.close()
            raise
        self._seen = 0  # microseconds of the driver's clock: `_others` has counted up to here
        self._own: dict[int, bool] = {}

    def once(self) -> dict[str, float]:
        """Returns the highest clock, and how busy the device is before the trial uses it."""
        nvml, handle = self._nvml, self._handle
        with contextlib.suppress(nvml.NVMLError):
            self._others()  # drops what the driver recorded before this trial
        return self._read(
            clock_max_mhz=lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM),
            busy_before=lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
        )

    def sample(self) -> dict[str, float]:
        """Returns clock, throttling, temperature, power and the share of others, as far as the driver reports them."""
        nvml, handle = self._nvml, self._handle
        readings = self._read(
            clock_mhz=lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
            # Drivers before 535 know the reasons by their older name.
            reasons=lambda: self._first("CurrentClocksEventReasons", "CurrentClocksThrottleReasons"),
            temperature_c=lambda: self._first("TemperatureV", "Temperature", nvml.NVML_TEMPERATURE_GPU),
            power_w=lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000,
            other_load=self._others,
        )
        if (reasons := readings.pop("reasons", None)) is not None:
            readings["throttled"] = float(bool(int(reasons) & THROTTLING))
            readings["power_capped"] = float(bool(int(reasons) & POWER_CAP))
        return readings

    def _read(self, **readers: Callable[[], float | None]) -> dict[str, float]:
        readings = {}
        for name, read in readers.items():
            with contextlib.suppress(self._nvml.NVMLError):
                if (value := read()) is not None:
                    readings[name] = float(value)
        return readings

    def close(self) -> None:
        """Releases the driver's library."""
        self._nvml.nvmlShutdown()

    def _find(self, index: int, name: str) -> Any:
        """The handle of the one visible GPU with this name; if there are several or none, of the one with this index.

        CUDA counts the fastest first and NVML by the bus, so with unequal GPUs an index can mean two devices.
        """
        nvml = self._nvml
        handles = [nvml.nvmlDeviceGetHandleByIndex(number) for number in range(nvml.nvmlDeviceGetCount())]
        ids = [(str(number), nvml.nvmlDeviceGetUUID(handle)) for number, handle in enumerate(handles)]
        left = [handles[number] for number in visible(("CUDA_VISIBLE_DEVICES",), ids)]
        named = [handle for handle in left if nvml.nvmlDeviceGetName(handle) == name]
        if len(named) == 1:
            return named[0]
        if index >= len(left):
            raise nvml.NVMLError(nvml.NVML_ERROR_NOT_FOUND)
        return left[index]

    def _first(self, newer: str, older: str, *arguments: Any) -> int:
        """What `nvmlDeviceGet<newer>` returns, or `<older>` where the library or the driver lacks it."""
        try:
            return int(getattr(self._nvml, f"nvmlDeviceGet{newer}")(self._handle, *arguments))
        except (AttributeError, self._nvml.NVMLError):
            return int(getattr(self._nvml, f"nvmlDeviceGet{older}")(self._handle, *arguments))

    def _others(self) -> float | None:
        """The share of the device that other processes took since the last call.

        None unless the driver lists processes of this one's tree: in a container it lists none, or by ids that mean
        nothing here.
        """
        samples = self._nvml.nvmlDeviceGetProcessUtilization(self._handle, self._seen)
        share: dict[int, list[int]] = {}
        for one in samples:
            if one.timeStamp > self._seen:
                share.setdefault(int(one.pid), []).append(int(one.smUtil))
        self._seen = max((int(one.timeStamp) for one in samples), default=self._seen)
        if not any(self._is_own(pid) for pid in share):
            return None
        return min(1.0, sum(sum(of) / len(of) for pid, of in share.items() if not self._is_own(pid)) / 100)

    def _is_own(self, pid: int) -> bool:
        if pid not in self._own:
            self._own[pid] = False
            with contextlib.suppress(psutil.Error):
                line = (pid, *(parent.pid for parent in psutil.Process(pid).parents()))
                self._own[pid] = os.getpid() in line
        return self._own[pid]
