"""What the suites share: the settings of `autoresearch bench`, machine facts, and a trainer at a preset's shapes.

Plain pytest has no settings and runs the suites that need no backend.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import backends
from core.measure.bench import ENDED, MISTAKE, PROGRESS, SETTINGS, SUITES, rounds
from core.records import Choice, Facts, Preset, UserError, from_json
from core.system import accelerators, hardware
from core.system.files import write_json
from core.system.text import seconds
from core.trainer.reference import reference_trainer
from core.trial.child.worker import load

OPTIONS: dict[str, Any] = json.loads(os.environ.get(SETTINGS, "{}"))
SIDE = from_json(Preset, OPTIONS["side"]) if OPTIONS.get("side") else None
QUICK = bool(OPTIONS.get("quick"))
BEGUN = time.monotonic()
ENDS = [BEGUN]  # of the benchmarks, by time.monotonic

Timed = Callable[..., Any]


class Side:
    """A backend with its reference trainer at the preset's shapes."""

    def __init__(self, preset: Preset) -> None:
        self.preset = preset
        self.backend = backends.get(preset.backend)
        self.device = self.backend.resolve(preset.device)
        with tempfile.TemporaryDirectory(prefix="autoresearch-") as temporary:
            path = Path(temporary) / "train.py"
            path.write_text(reference_trainer(preset), encoding="utf-8")
            self.trainer: ModuleType = load(path)
        self.facts = Facts(
            vocabulary=preset.vocabulary, bos=0, seed=1, backend=preset.backend, device=self.device,
            sequence_length=preset.sequence_length,
        )  # fmt: skip
        self.choices = self.trainer.choose(self.trainer.Machine.of(self.device))
        if hasattr(self.trainer, "limit_memory"):
            self.trainer.limit_memory(self.device)
        self.rows, slices = self.trainer.batch_shape(
            preset.total_batch_size, preset.sequence_length, preset.device_batch_size
        )
        self.slice_rows = self.rows // slices

    def model(self) -> Any:
        """A new model: a step may donate the weights that it starts from."""
        return self.trainer.build(self.facts, self.choices)

    def stepper(self) -> Any:
        """A new stepper with a model of its own."""
        return self.trainer.Stepper(self.model(), self.choices, self.slice_rows)

    def batch(self, rows: int) -> np.ndarray:
        """Random ids, int32 [rows, T + 1]."""
        shape = (rows, self.preset.sequence_length + 1)
        return np.random.default_rng(0).integers(1, self.preset.vocabulary, shape, dtype=np.int32)

    def record(self) -> dict[str, str]:
        """Facts for the record of a benchmark."""
        dtype = Choice.parse(self.choices.with_reasons()["dtype"]).value
        device = f"{self.device} ({self.backend.device_name(self.device)})"
        return {"backend": self.preset.backend, "device": device, "dtype": dtype}


@pytest.fixture(scope="session", params=[SIDE.backend] if SIDE else [])
def side() -> Side:
    assert SIDE is not None
    try:
        return Side(SIDE)
    except UserError as error:
        print(f"\n{MISTAKE}{error}", flush=True)
        pytest.exit(str(error), returncode=2)


@pytest.fixture
def timed(benchmark) -> Timed:  # type: ignore[no-untyped-def]
    """Times a call after two others that compile it and show its duration. Returns the last result."""

    def run(call: Callable[..., Any], *arguments: Any) -> Any:
        call(*arguments)
        start = time.perf_counter()
        call(*arguments)
        count = rounds(time.perf_counter() - start, quick=QUICK)
        return benchmark.pedantic(call, args=arguments, rounds=count)

    return run


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keeps the chosen suites: those of a backend, or those of none."""
    wanted = OPTIONS.get("suites", list(SUITES))

    def kept(item: pytest.Item) -> bool:
        marker = item.get_closest_marker("benchmark")
        suite = marker.kwargs.get("group") if marker else None
        if suite not in SUITES:
            raise pytest.UsageError(f"{item.name} belongs to no suite of core.measure.bench")
        needs_side = "side" in getattr(item, "fixturenames", ())
        return suite in wanted and needs_side == (SIDE is not None)

    every = {item: kept(item) for item in items}
    config.hook.pytest_deselected(items=[item for item in items if not every[item]])
    items[:] = [item for item in items if every[item]]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Prints the line of progress that `autoresearch bench` passes on: which benchmark, of how many, how long yet."""
    every = item.session.items
    place = every.index(item)
    left = f", about {seconds((time.monotonic() - BEGUN) / place * (len(every) - place))} left" if place else ""
    print(f"\n{PROGRESS}{item.name.removeprefix('test_')} ({place + 1} of {len(every)}{left})", flush=True)


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Writes all that was measured so far, and says so: what is ended later keeps it."""
    session = getattr(item.config, "_benchmarksession", None)
    if "ended" not in OPTIONS or session is None or not session.benchmarks:
        return
    hook = item.config.hook
    document = hook.pytest_benchmark_generate_json(
        config=item.config,
        benchmarks=session.benchmarks,
        include_data=False,
        machine_info=session.get_machine_info(),
        commit_info=hook.pytest_benchmark_generate_commit_info(config=item.config),
    )
    ENDS.append(time.monotonic())
    for one, begun, ended in zip(document["benchmarks"], ENDS, ENDS[1:], strict=False):
        one["wall_seconds"] = ended - begun
    write_json(Path(OPTIONS["ended"]), document)
    print(f"\n{ENDED}{item.name}", flush=True)


def pytest_benchmark_generate_machine_info(config: pytest.Config) -> dict[str, Any]:
    """What the results depend on."""
    versions = {"python": platform.python_version(), "numpy": np.__version__}
    return {
        "processor": hardware.processor(),
        "cores": hardware.cores(),
        "memory_mb": hardware.memory_mb(),
        "accelerators": [one.name for one in accelerators.accelerators()],
        "platform": platform.platform(),
        "preset": OPTIONS.get("preset"),
        "quick": QUICK,
        "versions": versions | (backends.get(SIDE.backend).versions() if SIDE else {}),
    }
