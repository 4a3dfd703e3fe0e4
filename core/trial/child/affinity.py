"""Where the first thread of a trainer's process may run. OpenMP binds it to one processor as soon as it is loaded.

Bound threads never share a processor with each other, which is what training on a CPU needs beside other work. But
compilers and loaders that the trainer starts inherit the binding, and need all processors.
"""

from __future__ import annotations

import os


class MainThread:
    """Make it before the framework is loaded. On systems without affinity it does nothing."""

    def __init__(self) -> None:
        self._whole = _affinity()
        self._bound = self._whole

    def release(self) -> None:
        """Lets the thread run anywhere: the framework is loaded, and compiling may begin. Forks run anywhere too."""
        self._bound = _affinity()
        if self._bound != self._whole:
            _bind(self._whole)
            os.register_at_fork(after_in_child=lambda: _bind(self._whole))

    def bind(self) -> None:
        """Binds it again as OpenMP did: training begins."""
        if self._bound != self._whole:
            _bind(self._bound)


def _affinity() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


def _bind(processors: set[int]) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, processors)
