"""What this machine is: its name, cores and memory, and the rate at which it multiplies matrices."""

from __future__ import annotations

import functools
import os
import platform
import timeit
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil

from core.system.accelerators import tool_output

MATRIX = 2048
PEAK_RUNS = 4


def matrix_product() -> Callable[[], None]:
    """A float32 NumPy product of two 2048 x 2048 matrices. Its first call is slow: it starts threads and maps pages."""
    random = np.random.default_rng(0)
    left = random.standard_normal((MATRIX, MATRIX), np.float32)
    right = random.standard_normal((MATRIX, MATRIX), np.float32)
    out = np.empty_like(left)

    def multiply() -> None:
        np.matmul(left, right, out=out)

    return multiply


@functools.cache
def matrix_flops() -> float:
    """FLOP/s of `matrix_product`: the best of a few runs, which take about half a second in all."""
    multiply = matrix_product()
    multiply()
    return 2 * MATRIX**3 / min(timeit.repeat(multiply, number=1, repeat=PEAK_RUNS))


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_mb() -> float:
    """Memory of the machine in MB."""
    return float(psutil.virtual_memory().total / 2**20)


@functools.cache
def processor() -> str:
    """The processor's name, as a person would call it."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if platform.system() == "Darwin" and (name := tool_output("sysctl", "-n", "machdep.cpu.brand_string").strip()):
        return name
    return platform.processor() or platform.machine()
