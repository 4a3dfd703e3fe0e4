"""Samples a device while a trial trains: clocks, throttling, temperature, and the load of other processes.

Nothing here fails a trial: drivers fail in many ways, and a reading that one doesn't give is left out. `nvml.py` reads
NVIDIA's GPUs.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import statistics
import sys
import threading
import time
from collections.abc import Mapping
from typing import Protocol

import psutil

from core.records import DeviceName
from core.system.accelerators import tool_output
from core.system.hardware import cores

PERIOD_SECONDS = 1.0
MOST_OF_A_CORE = 0.001  # share that sampling may take: slow samples are taken less often
MAXIMA = ("temperature_c", "thermal_pressure")  # of the other readings the mean is kept
THROTTLED, LOADED = 0.02, 0.10  # shares from which a person is warned

Readings = dict[str, float]


class Sensor(Protocol):
    """Reads one device. Any method may raise; its readings are left out then."""

    def once(self) -> Readings:
        """Returns what does not change, and what can only be read before the trial uses the device."""
        ...

    def sample(self) -> Readings:
        """Returns what changes, as it is now."""
        ...

    def close(self) -> None: ...


class Sampler:
    """Reads a device once a second from `start` to `stop`, in a thread of its own.

    `device` is the backend's name for it ("cuda:1", "mps", "cpu"), `name` the driver's. Make the sampler before the
    trial uses the device.
    """

    def __init__(self, device: str, name: str) -> None:
        self._host = HostLoad("" if device == "cpu" else "host_")
        self._sensors = _sensors(device, name)
        self._once: Readings = {}
        self._samples: dict[str, list[float]] = {}
        self._count = 0
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._summary: Readings | None = None
        for sensor in self._sensors:
            with contextlib.suppress(Exception):
                self._once |= sensor.once()

    def start(self) -> None:
        """Starts sampling. Call it just before the trial's clock starts."""
        with contextlib.suppress(Exception):
            self._host.start()
        self._thread = threading.Thread(target=self._run, name="conditions", daemon=True)
        self._thread.start()

    def stop(self) -> Readings:
        """Ends sampling and returns a summary; empty if sampling was not started. It may be called again.

        Clocks in MHz and power in W are means, temperatures in C are maxima. Shares, 0 to 1: `throttled` and
        `power_capped` of the samples, `other_load` of the device's time that other processes took, `busy_before` of the
        time before the trial in which the device was in use, `stolen` of the time that a virtual machine's host gave to
        others. Where the processors are not the device, their readings are named `host_...`. `load_1m`: the system's
        load average of a minute.
        """
        if self._summary is not None:
            return self._summary
        summary: Readings = {}
        if self._thread is not None:
            with contextlib.suppress(Exception):
                summary |= self._host.stop()
            self._stopping.set()
            self._thread.join(5)
            if not self._count and not self._thread.is_alive():
                self._sample()
            summary |= self._once
            for name, values in self._samples.items():
                summary[name] = max(values) if name in MAXIMA else statistics.fmean(values)
            summary = {name: round(value, 4) for name, value in summary.items()} | {"samples": self._count}
        for sensor in self._sensors:
            with contextlib.suppress(Exception):
                sensor.close()
        self._summary = summary
        return summary

    def _run(self) -> None:
        pause = PERIOD_SECONDS
        while not self._stopping.wait(pause):
            before = time.perf_counter()
            self._sample()
            pause = max(PERIOD_SECONDS, (time.perf_counter() - before) / MOST_OF_A_CORE)

    def _sample(self) -> None:
        for sensor in self._sensors:
            with contextlib.suppress(Exception):
                for name, value in sensor.sample().items():
                    self._samples.setdefault(name, []).append(value)
        self._count += 1


class HostLoad:
    """Measures the load of the processors that this process may use, from `start` to `stop`, by the system's counters.

    `prefix` stands before the names of the readings.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._begun: tuple[float, float, float, float] | None = None

    def start(self) -> None:
        self._begun = self._counters()

    def stop(self) -> Readings:
        """Returns the shares of the processors' time that other process trees took, and that a host stole.

        On POSIX also the load average of a minute. Empty if it was not started.
        """
        if self._begun is None:
            return {}
        now, busy, own, stolen = (after - before for after, before in zip(self._counters(), self._begun, strict=True))
        load: Readings = {}
        if now > 0:
            load[f"{self._prefix}other_load"] = min(1.0, max(0.0, busy - own) / now)
            load[f"{self._prefix}stolen"] = min(1.0, max(0.0, stolen) / now)
        if sys.platform != "win32":  # where psutil would have to count for minutes first
            load["load_1m"] = psutil.getloadavg()[0]
        return load

    def _counters(self) -> tuple[float, float, float, float]:
        """Seconds of these processors: all, busy, busy for this process's tree, stolen by a host."""
        each = psutil.cpu_times(percpu=True)
        mine = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(each))
        whole = busy = stolen = 0.0
        for number in mine:
            if number < len(each):
                fields = each[number]._asdict()
                # Linux counts a guest's time within user and nice already.
                spent = sum(value for name, value in fields.items() if name not in ("guest", "guest_nice"))
                idle = sum(fields.get(name, 0.0) for name in ("idle", "iowait", "steal"))
                whole, busy, stolen = whole + spent, busy + spent - idle, stolen + fields.get("steal", 0.0)
        return whole, busy, _tree_seconds(), stolen


def cores_of_others(seconds: float = 0.25) -> float:
    """How many processors other process trees use, measured over that time; 0 where the system can't say."""
    load = HostLoad("")
    with contextlib.suppress(Exception):
        load.start()
        time.sleep(seconds)
        return load.stop().get("other_load", 0.0) * cores()
    return 0.0


class CpuSensor:
    """Reads the processors' clock, where they are the device."""

    def once(self) -> Readings:
        most = psutil.cpu_freq().max
        return {"clock_max_mhz": most} if most else {}

    def sample(self) -> Readings:
        now = psutil.cpu_freq().current
        return {"clock_mhz": now} if now else {}

    def close(self) -> None:
        pass


class AppleSensor:
    """Reads what a Mac shows without root: the system's thermal pressure, and how busy the GPU was before the trial.

    Written from Apple's headers (notify.h, OSThermalNotification.h: 0 is nominal); not run by anyone yet.
    """

    _PRESSURE = b"com.apple.system.thermalpressurelevel"

    def __init__(self, *, gpu: bool) -> None:
        self._gpu = gpu
        self._system = ctypes.CDLL("/usr/lib/libSystem.dylib")
        self._token = ctypes.c_int()
        if self._system.notify_register_check(self._PRESSURE, ctypes.byref(self._token)) != 0:
            raise OSError("the system reports no thermal pressure")

    def once(self) -> Readings:
        output = tool_output("ioreg", "-r", "-d", "1", "-w", "0", "-c", "IOAccelerator") if self._gpu else ""
        shares = re.findall(r'"Device Utilization %"\s*=\s*(\d+)', output)
        return {"busy_before": max(map(int, shares)) / 100} if shares else {}

    def sample(self) -> Readings:
        level = ctypes.c_uint64()
        if self._system.notify_get_state(self._token, ctypes.byref(level)) != 0:
            return {}
        return {"throttled": float(level.value > 0), "thermal_pressure": float(level.value)}

    def close(self) -> None:
        self._system.notify_cancel(self._token)


def remarks(conditions: Mapping[str, float | str | None]) -> list[str]:
    """A sentence for each of a trial's conditions that may have changed its speed."""

    def share(name: str) -> float:
        value = conditions.get(name)
        return float(value) if isinstance(value, (int, float)) else 0.0

    found = []
    if share("throttled") >= THROTTLED:
        found.append(f"the device was throttled in {share('throttled'):.0%} of the samples")
    for prefix, of in (("", "the device"), ("host_", "the processors")):
        if share(f"{prefix}other_load") > LOADED:
            found.append(f"other processes took {share(f'{prefix}other_load'):.0%} of {of}")
        if share(f"{prefix}stolen") > LOADED:
            found.append(f"the virtual machine's host gave {share(f'{prefix}stolen'):.0%} of the processors to others")
    if "other_load" not in conditions and share("busy_before") > LOADED:
        found.append(f"the device was {share('busy_before'):.0%} busy before the trial used it")
    return found


def _sensors(device: str, name: str) -> list[Sensor]:
    place = DeviceName.parse(device)
    kind = place.kind
    found: list[Sensor] = []
    with contextlib.suppress(Exception):
        if kind == "cpu":
            found.append(CpuSensor())
        if sys.platform == "darwin":
            found.append(AppleSensor(gpu=kind != "cpu"))
        elif kind in ("cuda", "gpu"):
            from core.system.nvml import NvidiaSensor

            found.append(NvidiaSensor(place.index or 0, name))
    return found


def _tree_seconds() -> float:
    """Processor seconds of this process, of all that descend from it, and of those of them that have ended."""
    own = psutil.Process()
    total = 0.0
    for process in (own, *own.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
            total += getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return total
