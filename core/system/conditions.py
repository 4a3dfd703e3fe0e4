"""What a device was like while a trial trained: clocks, throttling, temperature and the load of others, sampled.

Nothing here fails a trial: what can't be read is left out. NVIDIA's GPUs are `core.system.nvml`'s.
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
from collections.abc import Iterator, Mapping
from typing import Protocol

import psutil

from core.system.accelerators import tool_output

PERIOD_SECONDS = 1.0
MOST_OF_A_CORE = 0.001  # a sample that is slow is taken the more rarely, so that no training pays for it
THROTTLED, LOADED = 0.02, 0.10  # shares from which a person should know

Values = dict[str, float]


class Device(Protocol):
    """Where the numbers of one device come from. Any method may raise; what it would have told is left out then."""

    def once(self) -> Values:
        """What does not change, and what is only known while nothing of the trial runs on the device."""
        ...

    def sample(self) -> Values:
        """What changes, as it is now."""
        ...

    def close(self) -> None: ...


class Sampler:
    """Looks at a device once a second from `start` to `stop`, in a thread of its own.

    `device` is the backend's name of it ("cuda:1", "mps", "cpu"), `name` what a person calls it. To be made before
    anything of the trial runs on the device.
    """

    def __init__(self, device: str, name: str) -> None:
        self._host = Host("" if device == "cpu" else "host_")
        self._devices = _devices(device, name)
        self._once: Values = {}
        self._samples: dict[str, list[float]] = {}
        self._count = 0
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._told: Values | None = None
        for one in self._devices:
            with _unharmed():
                self._once |= one.once()

    def start(self) -> None:
        """Begins: the clock of the trial is about to start."""
        with _unharmed():
            self._host.start()
        self._thread = threading.Thread(target=self._run, name="conditions", daemon=True)
        self._thread.start()

    def stop(self) -> Values:
        """Ends, and tells what was seen: empty if it was not started. Safe to call again.

        Flat: clocks in MHz and power in W are means, temperatures in C the highest. Shares, 0 to 1: `throttled` and
        `power_capped` of the samples, `other_load` of the device's time that others took, `busy_before` that it was in
        use before the trial used it, `stolen` that a virtual machine's host gave to others. `host_` goes before what
        is the processors' where they are not the device. `load_1m`: the system's load average of a minute.
        """
        if self._told is not None:
            return self._told
        self._told = {}
        if self._thread is not None:
            with _unharmed():
                self._told |= self._host.stop()
            self._stopping.set()
            self._thread.join(5)
            if not self._count and not self._thread.is_alive():
                self._look()
            self._told |= self._once | {name: _joined(name, seen) for name, seen in self._samples.items()}
            self._told = {name: round(value, 4) for name, value in self._told.items()} | {"samples": self._count}
        for one in self._devices:
            with _unharmed():
                one.close()
        return self._told

    def _run(self) -> None:
        pause = PERIOD_SECONDS
        while not self._stopping.wait(pause):
            before = time.perf_counter()
            self._look()
            pause = max(PERIOD_SECONDS, (time.perf_counter() - before) / MOST_OF_A_CORE)

    def _look(self) -> None:
        for one in self._devices:
            with _unharmed():
                for name, value in one.sample().items():
                    self._samples.setdefault(name, []).append(value)
        self._count += 1


class Host:
    """What the processors that this process may use did between `start` and `stop`, by the system's own counters."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._begun: tuple[float, float, float, float] | None = None

    def start(self) -> None:
        self._begun = self._counters()

    def stop(self) -> Values:
        """Shares of the processors' time that processes outside this one's tree took, and that was stolen."""
        if self._begun is None:
            return {}
        now, busy, own, stolen = (after - before for after, before in zip(self._counters(), self._begun, strict=True))
        told: Values = {}
        if now > 0:
            told[f"{self._prefix}other_load"] = min(1.0, max(0.0, busy - own) / now)
            told[f"{self._prefix}stolen"] = min(1.0, max(0.0, stolen) / now)
        if sys.platform != "win32":  # where psutil would have to count for minutes first
            told["load_1m"] = psutil.getloadavg()[0]
        return told

    def _counters(self) -> tuple[float, float, float, float]:
        """Seconds of these processors: altogether, busy, busy for this process's tree, stolen by a host."""
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


class Processors:
    """The clocks of the processors, where they are the device."""

    def once(self) -> Values:
        most = psutil.cpu_freq().max
        return {"clock_max_mhz": most} if most else {}

    def sample(self) -> Values:
        now = psutil.cpu_freq().current
        return {"clock_mhz": now} if now else {}

    def close(self) -> None:
        pass


class Apple:
    """A Mac, by what it tells without root: the system's thermal pressure, and how busy the GPU was before.

    Written from Apple's headers (notify.h, OSThermalNotification.h: 0 is nominal); not run by anyone yet.
    """

    _PRESSURE = b"com.apple.system.thermalpressurelevel"

    def __init__(self, *, gpu: bool) -> None:
        self._gpu = gpu
        self._system = ctypes.CDLL("/usr/lib/libSystem.dylib")
        self._token = ctypes.c_int()
        if self._system.notify_register_check(self._PRESSURE, ctypes.byref(self._token)) != 0:
            raise OSError("the system tells no thermal pressure")

    def once(self) -> Values:
        told = tool_output("ioreg", "-r", "-d", "1", "-w", "0", "-c", "IOAccelerator") if self._gpu else ""
        shares = re.findall(r'"Device Utilization %"\s*=\s*(\d+)', told)
        return {"busy_before": max(map(int, shares)) / 100} if shares else {}

    def sample(self) -> Values:
        level = ctypes.c_uint64()
        if self._system.notify_get_state(self._token, ctypes.byref(level)) != 0:
            return {}
        return {"throttled": float(level.value > 0), "thermal_pressure": float(level.value)}

    def close(self) -> None:
        self._system.notify_cancel(self._token)


def remarks(conditions: Mapping[str, float | str | None]) -> list[str]:
    """What of a trial's conditions casts a doubt on its speed, in words; empty if nothing does."""

    def share(name: str) -> float:
        value = conditions.get(name)
        return float(value) if isinstance(value, (int, float)) else 0.0

    told = []
    if share("throttled") >= THROTTLED:
        told.append(f"the device was throttled in {share('throttled'):.0%} of the samples")
    for prefix, of in (("", "the device"), ("host_", "the processors")):
        if share(f"{prefix}other_load") > LOADED:
            told.append(f"other processes took {share(f'{prefix}other_load'):.0%} of {of}")
        if share(f"{prefix}stolen") > LOADED:
            told.append(f"the virtual machine's host gave {share(f'{prefix}stolen'):.0%} of the processors to others")
    if "other_load" not in conditions and share("busy_before") > LOADED:
        told.append(f"the device was {share('busy_before'):.0%} busy before the trial used it")
    return told


def _devices(device: str, name: str) -> list[Device]:
    kind, _, index = device.partition(":")
    found: list[Device] = []
    with _unharmed():
        if kind == "cpu":
            found.append(Processors())
        if sys.platform == "darwin":
            found.append(Apple(gpu=kind != "cpu"))
        elif kind in ("cuda", "gpu"):
            from core.system.nvml import Gpu

            found.append(Gpu(int(index or 0), name))
    return found


def _joined(name: str, seen: list[float]) -> float:
    return max(seen) if name in ("temperature_c", "thermal_pressure") else statistics.fmean(seen)


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


@contextlib.contextmanager
def _unharmed() -> Iterator[None]:
    """Drivers and their libraries fail in ways of their own, and none of them is a trial's."""
    try:
        yield
    except Exception:  # noqa: BLE001
        return
