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

# Seconds of suites that need no backend and have as many rounds with `quick` as without. Of the first two, processor
# time on one core of an AMD EPYC; of the third, what `bench.SUITES` says.
FIXED = {"packing": 2.0, "tokenizer": 3.2, "experiment": 60.0}


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
        if before is None and suite == "peak":
            by_cost += _calls(_product(hardware.matrix_flops()), quick=quick)
        elif before is None:
            elsewhere += FIXED[suite]
    sources = {
        "what it took before": known,
        "the preset's FLOP at this device's peak": by_cost,
        "times of another machine": elsewhere,
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
    wider = 1 if device.device == "cpu" else bench.WIDER
    training = cost.flops_per_token(side) / estimates.sustained_flops(device)
    seconds = {
        "peak": _product(device.likely_tflops * 1e12, wider),
        "step": tokens * training,
        "optimizer": tokens * training,  # at most
        "scoring": min(tokens, REQUEST_TOKENS) * training * estimates.SCORING_PASSES,
    }
    started = estimates.STARTUP_SECONDS.get(device.device, max(estimates.STARTUP_SECONDS.values()))
    return started + sum(_calls(seconds[suite], quick=quick) for suite in suites)


def _product(flops: float, wider: int = 1) -> float:
    """Seconds of a matrix product at that many FLOP/s."""
    return 2 * (wider * hardware.MATRIX) ** 3 / flops


def _calls(seconds: float, *, quick: bool) -> float:
    """Seconds of a benchmark whose call takes `seconds`: its rounds, and two calls before them."""
    return seconds * (2 + bench.rounds(seconds, quick=quick))
