"""The conditions of a trial: real counters of this machine, and devices that are scripted, slow or broken."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from core.system import conditions
from core.system.conditions import HostLoad, Sampler, cores_of_others, remarks


class Scripted:
    """A device whose samples are given."""

    def __init__(self, *samples: dict[str, float] | Exception) -> None:
        self.samples = list(samples)
        self.closed = 0

    def once(self) -> dict[str, float]:
        return {"clock_max_mhz": 2000.0}

    def sample(self) -> dict[str, float]:
        found = self.samples.pop(0) if len(self.samples) > 1 else self.samples[0]
        if isinstance(found, Exception):
            raise found
        return found

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditions, "PERIOD_SECONDS", 0.01)
    monkeypatch.setattr(conditions, "MOST_OF_A_CORE", 1.0)


def sampled(monkeypatch: pytest.MonkeyPatch, *devices: Any, count: int = 3) -> dict[str, float]:
    """What a sampler of these devices tells after at least `count` samples."""
    monkeypatch.setattr(conditions, "_sensors", lambda device, name: list(devices))
    sampler = Sampler("cuda", "a GPU")
    sampler.start()
    deadline = time.monotonic() + 20
    while sampler._count < count and time.monotonic() < deadline:
        time.sleep(0.005)
    return sampler.stop()


def test_means_of_clocks_shares_of_samples_and_the_highest_temperature(
    monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    device = Scripted(
        {"clock_mhz": 1000.0, "throttled": 1.0, "temperature_c": 60.0},
        {"clock_mhz": 2000.0, "throttled": 0.0, "temperature_c": 90.0},
        {"clock_mhz": 1500.0, "throttled": 0.5, "temperature_c": 70.0},  # from here on the same for ever
    )
    got = sampled(monkeypatch, device)
    assert (got["clock_mhz"], got["throttled"], got["clock_max_mhz"]) == (1500.0, 0.5, 2000.0)
    assert got["temperature_c"] == 90.0
    assert got["samples"] >= 3
    assert device.closed == 1
    assert all(type(value) in (int, float) for value in got.values())


def test_a_device_that_fails_takes_nothing_else_with_it(monkeypatch: pytest.MonkeyPatch, quick: None) -> None:
    class Broken(Scripted):
        def once(self) -> dict[str, float]:
            raise OSError("no driver")

        def close(self) -> None:
            raise RuntimeError("and no library")

    got = sampled(monkeypatch, Broken(OSError("gone")), Scripted({"clock_mhz": 5.0}, ValueError("odd")))
    assert got["clock_mhz"] == 5.0
    assert got["samples"] >= 3


def test_a_slow_device_is_asked_the_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditions, "PERIOD_SECONDS", 0.01)

    class Slow(Scripted):
        def sample(self) -> dict[str, float]:
            time.sleep(0.05)
            return {"clock_mhz": 1.0}

    monkeypatch.setattr(conditions, "_sensors", lambda device, name: [Slow({})])
    sampler = Sampler("cuda", "a GPU")
    sampler.start()
    time.sleep(0.5)
    assert sampler.stop()["samples"] == 1  # the next would come after 50 s


def test_what_never_started_tells_nothing_and_a_short_trial_has_one_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Scripted({"clock_mhz": 7.0})
    monkeypatch.setattr(conditions, "PERIOD_SECONDS", 60.0)
    monkeypatch.setattr(conditions, "_sensors", lambda device_, name: [device])
    assert Sampler("cuda", "a GPU").stop() == {}
    assert device.closed == 1
    sampler = Sampler("cuda", "a GPU")
    sampler.start()
    got = sampler.stop()
    assert (got["samples"], got["clock_mhz"]) == (1, 7.0)
    assert sampler.stop() is got
    assert device.closed == 2


def spin(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


@contextlib.contextmanager
def counters(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The system's counters of two processors, for a test to move."""
    at = SimpleNamespace(user=0.0, system=0.0, idle=0.0, steal=0.0, own=0.0)

    class Times(SimpleNamespace):
        def _asdict(self) -> dict[str, float]:
            return dict(vars(self))

    def read(percpu: bool) -> list[Times]:
        one = Times(user=at.user, system=at.system, idle=at.idle, iowait=0.0, steal=at.steal, guest=99.0 * at.user)
        return [one, one]

    monkeypatch.setattr(psutil, "cpu_times", read)
    monkeypatch.setattr(conditions, "_tree_seconds", lambda: at.own)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    yield at


def test_what_others_took_is_what_was_busy_less_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with counters(monkeypatch) as at:
        host = HostLoad("")
        assert host.stop() == {}
        host.start()
        at.user, at.system, at.idle, at.steal, at.own = 6.0, 1.0, 2.0, 1.0, 8.0
        got = host.stop()
        # Of 20 seconds of two processors: 14 busy, 8 of them by this tree, and 2 stolen.
        assert (got["other_load"], got["stolen"]) == (pytest.approx(0.3), pytest.approx(0.1))
        at.own = 30.0  # counters of the two kinds are not read at one moment
        assert host.stop()["other_load"] == 0.0


def test_the_tree_counts_children_also_when_they_have_ended() -> None:
    begun = conditions._tree_seconds()
    spin(0.2)
    child = multiprocessing.get_context("spawn").Process(target=spin, args=(0.3,))
    child.start()
    child.join()
    counted = conditions._tree_seconds() - begun
    least = 0.2 if sys.platform == "win32" else 0.5  # Windows forgets a child's time with the child
    assert counted >= least - 0.03  # counters tick in hundredths


def test_this_machine_has_conditions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditions, "PERIOD_SECONDS", 60.0)
    sampler = Sampler("cpu", "the processor")
    sampler.start()
    spin(0.1)
    got = sampler.stop()
    assert 0 <= got["other_load"] <= 1
    assert got["samples"] == 1
    if psutil.cpu_freq() is not None:
        assert got["clock_mhz"] > 100
    assert "host_other_load" not in got


def test_on_another_device_the_processors_are_the_host() -> None:
    sampler = Sampler("tpu", "TPU v5 lite")
    sampler.start()
    time.sleep(0.1)  # several ticks of the processors' counters
    got = sampler.stop()
    assert "host_other_load" in got
    assert "other_load" not in got


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ({}, []),
        ({"throttled": 0.01, "other_load": 0.1, "stolen": 0.1, "samples": 9}, []),
        ({"throttled": 0.4}, ["the device was throttled in 40% of the samples"]),
        ({"other_load": 0.11}, ["other processes took 11% of the device"]),
        ({"host_other_load": 0.5, "power_capped": 1.0}, ["other processes took 50% of the processors"]),
        ({"stolen": 0.2}, ["the virtual machine's host gave 20% of the processors to others"]),
        ({"busy_before": 0.9}, ["the device was 90% busy before the trial used it"]),
        ({"busy_before": 0.9, "other_load": 0.0}, []),  # what is known is better than what can be guessed
        ({"other_load": None, "throttled": "much"}, []),
    ],
)
def test_only_what_is_remarkable_is_told(seen: dict[str, Any], said: list[str]) -> None:
    assert remarks(seen) == said


@pytest.mark.skipif(sys.platform != "darwin", reason="a Mac's own interfaces")
def test_a_mac_tells_its_thermal_pressure() -> None:
    device = conditions.AppleSensor(gpu=True)
    got = device.sample()
    assert got["throttled"] in (0.0, 1.0)
    assert 0 <= got["thermal_pressure"] <= 4
    device.close()


@pytest.mark.skipif(sys.platform == "win32", reason="a child stays its parent's there")
def test_the_processors_of_others_are_counted_and_not_ones_own() -> None:
    spinning = [sys.executable, "-c", "while True: pass"]
    nowhere = "stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL"  # else this process would wait for it
    orphan = f"import subprocess; print(subprocess.Popen({spinning!r}, {nowhere}).pid)"
    other = int(subprocess.run([sys.executable, "-c", orphan], capture_output=True, check=True).stdout)
    try:
        assert cores_of_others(0.5) > 0.2
    finally:
        os.kill(other, signal.SIGKILL)
