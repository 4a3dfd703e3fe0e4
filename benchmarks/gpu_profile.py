"""Where the time of a step of the PyTorch trainer goes, by torch.profiler, and what the device can do at most.

    python -m benchmarks.gpu_profile --preset h100 --out profile.json --trace trace.json.gz

The file is written again after each part, so that a process that is ended leaves what it had found. Steps take tokens
at random from this process: no supervisor, no sandbox.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
import os
import re
import site
import statistics
import sys
import tempfile
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

STEPS = 3
TIMED_STEPS = 5  # without the profiler, which slows what it watches
STEP, OPTIMIZER = "kit:step", "kit:optimizer"  # ranges in the trace
SHARES = ("products", "attention", "head", "optimizer", "copies", "passes")
TOP = 40
_ATTENTION = re.compile(r"attention|flash|fmha|sdpa|flex", re.IGNORECASE)
_HEAD = re.compile(r"softmax|nll_loss|cross_entropy|tanh", re.IGNORECASE)
_PRODUCT = re.compile(r"gemm|nvjet|cutlass|xmma|::mm$|::bmm$|::addmm$|::baddbmm$|::linear$|triton_tem", re.IGNORECASE)
_COPY = re.compile(r"memcpy|memset", re.IGNORECASE)

Event = Mapping[str, Any]


# ---- Reading a trace -------------------------------------------------------------------------------------------------


def share_of(kernel: str, operation: str, shapes: str, in_optimizer: bool, vocabulary: int) -> str:
    """Which part of a step a kernel belongs to: one of SHARES.

    `operation` is PyTorch's innermost one that launched it, `shapes` its inputs' as text. Passes are all kernels that
    only read and write: norms, rotary embedding, activations, embeddings, sums of gradients.
    """
    if _COPY.search(kernel):
        return "copies"
    if in_optimizer:
        return "optimizer"
    if _ATTENTION.search(kernel) or _ATTENTION.search(operation):
        return "attention"
    is_product = bool(_PRODUCT.search(kernel) or _PRODUCT.search(operation))
    if _HEAD.search(kernel) or _HEAD.search(operation) or (is_product and re.search(rf"\b{vocabulary}\b", shapes)):
        return "head"
    return "products" if is_product else "passes"


def analyse(events: Iterable[Event], vocabulary: int, *, on_device: bool) -> dict[str, Any]:
    """Shares of the busy time, idle time within and between steps, and the longest kernels, from a Chrome trace.

    `on_device`: kernels of a GPU are counted, else the operations of the processor by the time that is their own.
    Times are in milliseconds, those of a step are means over the steps.
    """
    whole = [event for event in events if event.get("ph") == "X" and "dur" in event]
    operations = [event for event in whole if event.get("cat") == "cpu_op"]
    ranges = {
        name: sorted(
            (event["ts"], event["ts"] + event["dur"])
            for event in whole
            if event.get("cat") == "user_annotation" and event["name"] == name
        )
        for name in (STEP, OPTIMIZER)
    }
    parents = _nested(operations)
    if on_device:
        work = _kernels(whole, operations, parents)
    else:
        work = [(event["ts"], event["ts"], own, event["name"], event) for event, own in _own_times(operations, parents)]
    totals: dict[str, float] = dict.fromkeys(SHARES, 0.0)
    kernels: dict[tuple[str, str], list[float]] = defaultdict(list)
    busy: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for launched, start, duration, name, operation in work:
        if (step := _within(ranges[STEP], launched)) is None:
            continue
        shapes = json.dumps((operation or {}).get("args", {}).get("Input Dims", ""))
        in_optimizer = _within(ranges[OPTIMIZER], launched) is not None
        share = share_of(name, (operation or {}).get("name", ""), shapes, in_optimizer, vocabulary)
        totals[share] += duration
        kernels[name, share].append(duration)
        busy[step].append((start, start + duration))
    if not on_device:
        for step, (start, end) in enumerate(ranges[STEP]):
            inside = [one for one in operations if start <= one["ts"] < end]
            busy[step] = [(one["ts"], one["ts"] + one["dur"]) for one in inside]
    return _summed(totals, kernels, busy)


def _summed(
    totals: Mapping[str, float],
    kernels: Mapping[tuple[str, str], list[float]],
    busy: Mapping[int, list[tuple[float, float]]],
) -> dict[str, Any]:
    steps = max(1, len(busy))
    all_of_it = sum(totals.values()) or 1.0
    spans = [(min(start for start, _ in busy[one]), max(end for _, end in busy[one])) for one in sorted(busy)]
    idle = [
        end - start - sum(to - since for since, to in _union(busy[one]))
        for one, (start, end) in zip(sorted(busy), spans, strict=True)
    ]
    gaps = [after[0] - before[1] for before, after in pairwise(spans)]
    longest = sorted(kernels.items(), key=lambda one: -sum(one[1]))[:TOP]
    return {
        "steps": len(busy),
        "busy_ms": sum(totals.values()) / 1000 / steps,
        "share": {name: value / all_of_it for name, value in totals.items()},
        "ms": {name: value / 1000 / steps for name, value in totals.items()},
        "idle_in_step_ms": statistics.fmean(idle) / 1000 if idle else None,
        "gap_between_steps_ms": statistics.median(gaps) / 1000 if gaps else None,
        "launches": sum(map(len, kernels.values())) / steps,
        "longest": [
            {"name": name[:160], "part": share, "ms": sum(times) / 1000 / steps, "launches": len(times) / steps}
            for (name, share), times in longest
        ],
    }


def _kernels(
    whole: Sequence[Event], operations: Sequence[Event], parents: Mapping[int, Event | None]
) -> list[tuple[float, float, float, str, Event | None]]:
    """A GPU's work: when it was launched, when it began, how long it took, its name and the operation it came from."""
    launches = {
        event["args"]["correlation"]: event
        for event in whole
        if event.get("cat") in ("cuda_runtime", "cuda_driver") and "correlation" in event.get("args", {})
    }
    threads: dict[Any, list[Event]] = defaultdict(list)
    for one in sorted(operations, key=lambda one: one["ts"]):
        threads[one["tid"]].append(one)
    begins = {thread: [one["ts"] for one in found] for thread, found in threads.items()}
    work: list[tuple[float, float, float, str, Event | None]] = []
    for event in whole:
        if event.get("cat") not in ("kernel", "gpu_memcpy", "gpu_memset"):
            continue
        launch = launches.get(event.get("args", {}).get("correlation"))
        launched = launch["ts"] if launch else event["ts"]
        operation: Event | None = None
        if launch and (found := threads.get(launch["tid"])):
            index = bisect_right(begins[launch["tid"]], launched) - 1
            operation = found[index] if index >= 0 else None
            while operation is not None and operation["ts"] + operation["dur"] < launched:
                operation = parents[id(operation)]
        work.append((launched, event["ts"], event["dur"], event["name"], operation))
    return work


def _nested(operations: Sequence[Event]) -> dict[int, Event | None]:
    """The operation that each one was called by, by identity."""
    parents: dict[int, Event | None] = {}
    stacks: dict[Any, list[Event]] = defaultdict(list)
    for one in sorted(operations, key=lambda one: (one["ts"], -one["dur"])):
        stack = stacks[one["tid"]]
        while stack and stack[-1]["ts"] + stack[-1]["dur"] <= one["ts"]:
            stack.pop()
        parents[id(one)] = stack[-1] if stack else None
        stack.append(one)
    return parents


def _own_times(operations: Sequence[Event], parents: Mapping[int, Event | None]) -> list[tuple[Event, float]]:
    own = {id(one): float(one["dur"]) for one in operations}
    for one in operations:
        if (parent := parents[id(one)]) is not None:
            own[id(parent)] -= one["dur"]
    return [(one, max(0.0, own[id(one)])) for one in operations]


def _within(ranges: Sequence[tuple[float, float]], moment: float) -> int | None:
    """The number of the range that holds the moment."""
    index = bisect_right(ranges, (moment, float("inf"))) - 1
    return index if index >= 0 and moment < ranges[index][1] else None


def _union(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    joined: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


# ---- Measuring -------------------------------------------------------------------------------------------------------


class Profile:
    """The reference trainer of a preset on a device, and what is measured of it; `found` is what the file holds."""

    def __init__(self, preset: Any, device: str, folder: Path, out: Path) -> None:
        from backends.base import batch_shape
        from core.trainer.reference import reference_trainer

        self.preset, self.device, self.out = preset, device, out
        self.found: dict[str, Any] = {"preset": preset.name, "device": device}
        self.trainer = load(reference_trainer(preset), folder)
        self.rows, self.slices = batch_shape(
            preset.total_batch_size, preset.sequence_length, preset.device_batch_size, None
        )

    def keep(self, **found: Any) -> None:
        """Adds to the file."""
        self.found |= found
        partial = self.out.with_suffix(".partial")
        partial.write_text(json.dumps(self.found, indent=1) + "\n", encoding="utf-8")
        partial.replace(self.out)

    def synchronize(self) -> None:
        import torch

        if self.device.startswith("cuda"):
            torch.cuda.synchronize()

    def ceilings(self) -> None:
        """The rate of a large product in the dtype that trains, and of a large copy, on random numbers."""
        import torch

        cuda = self.device.startswith("cuda")
        choices = self.trainer.choose(self.trainer.Machine.of(self.device))
        width, length = (8192, 2**30) if cuda else (1024, 2**24)
        a, b = (torch.randn(width, width, device=self.device).to(choices.dtype) for _ in range(2))
        source = torch.randn(length, device=self.device)
        target = torch.empty_like(source)
        product = self.seconds(lambda: a @ b)
        copy = self.seconds(lambda: target.copy_(source))
        self.keep(
            ceilings={
                "product": f"{width} x {width} x {width} in {str(choices.dtype).removeprefix('torch.')}",
                "tflops": 2 * width**3 / product / 1e12,
                "copy_gb_s": 2 * 4 * length / copy / 1e9,
            }
        )

    def seconds(self, work: Callable[[], Any], *, times: int = 10) -> float:
        """The median of some calls, after two that don't count."""
        taken = []
        for number in range(times + 2):
            self.synchronize()
            begun = time.perf_counter()
            work()
            self.synchronize()
            if number >= 2:
                taken.append(time.perf_counter() - begun)
        return statistics.median(taken)

    def steps(self, trace: Path) -> None:
        """Times some steps, then profiles STEPS of them and writes their trace."""
        import numpy as np
        from torch.profiler import ProfilerActivity, profile, record_function

        from core.records import Facts

        facts = Facts(
            vocabulary=self.preset.vocabulary,
            bos=256,
            seed=1,
            backend="torch",
            device=self.device,
            sequence_length=self.preset.sequence_length,
        )
        choices = self.trainer.choose(self.trainer.Machine.of(self.device))
        draws = np.random.default_rng(0)

        def batch(rows: int) -> Any:
            shape = (rows, self.preset.sequence_length + 1)
            return draws.integers(0, self.preset.vocabulary, shape, dtype=np.int32)

        begun = time.perf_counter()
        stepper = self.trainer.Stepper(self.trainer.build(facts, choices), choices, self.rows // self.slices)
        stepper.warm(batch(self.rows // self.slices) for _ in range(2))
        batches = [batch(self.rows) for _ in range(2)]
        self.synchronize()
        warm = time.perf_counter() - begun
        step = self.seconds(lambda: stepper.step(batches[0], 0.1), times=TIMED_STEPS)
        tokens = self.rows * self.preset.sequence_length
        self.keep(
            choices=choices.with_reasons(),
            rows=self.rows,
            slices=self.slices,
            warm_seconds=warm,
            step_ms=step * 1000,
            tokens_per_second=tokens / step,
            achieved_tflops=tokens / step * stepper.model.flops_per_token() / 1e12,
        )
        update = stepper.optimizer.step

        def annotated(*arguments: Any, **named: Any) -> None:
            with record_function(OPTIMIZER):
                update(*arguments, **named)

        stepper.optimizer.step = annotated
        cuda = self.device.startswith("cuda")
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
        with profile(activities=activities, record_shapes=True) as profiler:
            for number in range(STEPS):
                with record_function(STEP):
                    stepper.step(batches[number % 2], 0.1)
            self.synchronize()
        raw = trace.with_suffix("")
        profiler.export_chrome_trace(str(raw))
        events = json.loads(raw.read_text(encoding="utf-8", errors="replace"))["traceEvents"]
        with raw.open("rb") as source, gzip.open(trace, "wb") as target:
            target.write(source.read())
        raw.unlink()
        self.keep(profile=analyse(events, self.preset.vocabulary, on_device=cuda))

    def attention(self) -> None:
        """Milliseconds of each kernel for attention that is here, forward and backward, with and without a window."""
        import torch

        rows = self.rows // self.slices
        length, heads_of = self.preset.sequence_length, self.trainer.HEAD_DIM
        heads = max(1, self.preset.depth * self.trainer.ASPECT_RATIO // heads_of)
        dtype = self.trainer.choose(self.trainer.Machine.of(self.device)).dtype
        shape = (rows, length, heads, heads_of)
        q, k, v, toward = (torch.randn(shape, device=self.device).to(dtype) for _ in range(4))
        for tensor in (q, k, v):
            tensor.requires_grad_()
        found: dict[str, Any] = {}
        kernels = ["sdpa"]
        if self.device.startswith("cuda"):
            kernels += ["flex", *(["flash-attn-4"] if importlib.util.find_spec("flash_attn") else [])]
        pairs = [(name, window) for name in kernels for window in (None, length // 2) if window or name != "flex"]
        for name, window in pairs:
            label = f"{name}, window {window}" if window else name
            try:
                with torch.device(self.device):
                    attend = flash4(window) if name == "flash-attn-4" else self.trainer.attention(name, window)
                attend = torch.compile(attend, dynamic=False) if name == "flex" else attend
                found[label] = self.both_ways(attend, q, k, v, toward)
            except Exception as error:  # noqa: BLE001  one kernel that fails says so, the others go on
                found[label] = f"{type(error).__name__}: {str(error)[:300]}"
            self.keep(attention_shape=shape, attention=found)

    def both_ways(self, attend: Callable[..., Any], q: Any, k: Any, v: Any, toward: Any) -> dict[str, float]:
        import torch

        forward = self.seconds(lambda: attend(q, k, v))
        both = self.seconds(lambda: torch.autograd.grad(attend(q, k, v), (q, k, v), toward))
        return {"forward_ms": forward * 1000, "both_ms": both * 1000}


def flash4(window: int | None) -> Callable[..., Any]:
    """FlashAttention-4's function of q, k and v, each [B, T, N, H]."""
    from flash_attn.cute import flash_attn_func

    def attend(q: Any, k: Any, v: Any) -> Any:
        out = flash_attn_func(q, k, v, causal=True, window_size=(window, 0) if window else (None, None))
        return out[0] if isinstance(out, tuple) else out

    return attend


def load(text: str, folder: Path) -> ModuleType:
    """A trainer's text as a module."""
    path = folder / "profiled_trainer.py"
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def main(arguments: Sequence[str] | None = None) -> int:
    """The status: 0, or 2 for a mistake."""
    for folder in filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)):
        site.addsitedir(folder)  # CUTLASS finds its parts by a .pth file, which Python reads in such folders only
    import backends
    import presets
    from core.records import UserError
    from core.trial import compile_cache

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--preset", default="h100")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=Path("profile.json"))
    parser.add_argument("--trace", type=Path, default=Path("trace.json.gz"))
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="autoresearch-profile-") as scratch:
        try:
            preset = presets.load(options.preset, {"device": options.device})
            # Begins with what earlier trials compiled, and leaves the store as it is.
            compile_cache.copy(compile_cache.store("torch"), Path(scratch) / "compiled")
            own = backends.get("torch").environment(
                Path(scratch) / "compiled", compile_cache.fetched("torch"), options.device
            )
            os.environ.update(own)
            measured = Profile(preset, options.device, Path(scratch), options.out)
        except UserError as error:
            print(f"gpu_profile: {error}", file=sys.stderr)
            return 2
        for part in (measured.ceilings, lambda: measured.steps(options.trace), measured.attention):
            part()
    print(json.dumps(measured.found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
