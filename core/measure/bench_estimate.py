"""How long `autoresearch bench` will take: as long as its benchmarks took before here, else what they should cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import backends
from core.measure import auto_preset, bench
from core.records import Preset, to_json
from core.system import accelerators, hardware
from core.trial.scoring import REQUEST_TOKENS
from presets import cost
from presets import estimate as estimates

# Seconds of the benchmarks without a backend, with few rounds and with many: measured on two cores.
WITHOUT_BACKEND = {"peak": (2.0, 12.0), "packing": (3.0, 3.0), "tokenizer": (12.0, 12.0), "experiment": (60.0, 60.0)}


@dataclass(frozen=True)
class ExpectedTime:
    """An estimate, and where it comes from."""

    seconds: float
    source: str


def expected_time(suites: Sequence[str], preset: Preset, sides: Mapping[str, Preset], *, quick: bool) -> ExpectedTime:
    """The time of all benchmarks of the suites, on the backends of `sides`. UserError if a device is not here."""
    took = _took(preset, quick=quick)
    known, by_cost, elsewhere = 0.0, 0.0, 0.0
    for side in sides.values():
        ours = [suite for suite in suites if suite in bench.OF_BACKENDS]
        known += sum(took.get((suite, side.backend), 0.0) for suite in ours)
        if missing := [suite for suite in ours if (suite, side.backend) not in took]:
            by_cost += _cost(missing, side, quick=quick)
    for suite in (suite for suite in suites if suite in bench.OF_NONE):
        before = took.get((suite, ""))
        known += before or 0.0
        elsewhere += WITHOUT_BACKEND[suite][not quick] if before is None else 0.0
    sources = {
        "what it took before": known,
        "the preset's FLOP at this device's peak": by_cost,
        "times of two cores": elsewhere,
    }
    return ExpectedTime(sum(sources.values()), ", ".join(source for source, part in sources.items() if part))


def _took(preset: Preset, *, quick: bool) -> dict[tuple[str, str], float]:
    """Seconds by suite and backend, of the newest saved run of this machine and preset that has them.

    The backend is "" for what runs beside the backends' own processes.
    """
    models = [name for name in backends.names() if backends.get(name).has_model]
    here = {
        "processor": hardware.processor(),
        "cores": hardware.cores(),
        "accelerators": [one.name for one in accelerators.accelerators()],
        "preset": to_json(preset),
        "quick": quick,
    }
    found: dict[tuple[str, str], float] = {}
    for run in bench.saved(lambda line: None):
        if all(run.machine.get(key) == here[key] for key in bench.SAME):
            took: dict[tuple[str, str], float] = {}
            for one in run.results:
                if one.wall_seconds is not None:
                    backend = one.facts.get("backend")
                    key = (one.suite, backend if backend in models else "")
                    took[key] = took.get(key, 0.0) + one.wall_seconds
            found = took | found
    return found


def _cost(suites: Sequence[str], side: Preset, *, quick: bool) -> float:
    """Seconds for one backend's suites: the start of its process, and each call with those before its rounds."""
    device = auto_preset.find({"backend": side.backend, "device": side.device})[0].device
    tokens = cost.rows(side) * side.sequence_length
    size = hardware.MATRIX * (1 if device.device == "cpu" else bench.WIDER)
    training = cost.flops_per_token(side) / estimates.sustained_flops(device)
    seconds = {
        "peak": 2 * size**3 / (device.likely_tflops * 1e12),
        "step": tokens * training,
        "optimizer": tokens * training,  # at most
        "scoring": min(tokens, REQUEST_TOKENS) * training * estimates.SCORING_PASSES,
    }
    calls = {suite: 2 + bench.rounds(seconds[suite], quick=quick) for suite in suites}
    started = estimates.STARTUP_SECONDS.get(device.device, max(estimates.STARTUP_SECONDS.values()))
    return started + sum(calls[suite] * seconds[suite] for suite in suites)
