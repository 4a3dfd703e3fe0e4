"""Arrays between supervisor and trial: one file that a trial maps into memory and the supervisor reads and writes.

The supervisor never maps the file, because a trial that shortens it would then end the supervisor with a bus error.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

import numpy as np
import numpy.typing as npt

from core.system.files import is_full


class NoSpace(OSError):
    """The disk that a trial's scratch is on has no room for a slot."""


class SharedArray:
    """The supervisor's side: a file of fixed size, written and read as a whole array."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size
        with raising_no_space(path):
            self._file = self._opened()

    def _opened(self) -> FileIO:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        file = open(os.open(self.path, flags, 0o600), "r+b", buffering=0)  # noqa: SIM115  closed by close()
        file.truncate(self.size)
        return file

    def write(self, *arrays: npt.NDArray[np.generic]) -> None:
        """Writes the arrays one after the other from the start. NoSpace where the scratch's disk is full."""
        self._file.seek(0)
        with raising_no_space(self.path):
            for array in arrays:
                view = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
                while view:
                    view = view[self._file.write(view) :]

    def read(self, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """Float32 values from the start. OSError if the file is shorter than that."""
        out = np.empty(shape, np.float32)
        view = out.reshape(-1).view(np.uint8).data
        self._file.seek(0)
        while view:
            count = self._file.readinto(view)
            if not count:
                raise OSError("the slot was cut short by the trial")
            view = view[count:]
        return out

    def close(self) -> None:
        """Closes the file; its folder's owner deletes it."""
        self._file.close()


@contextlib.contextmanager
def raising_no_space(path: Path) -> Iterator[None]:
    """Turns the system's error of a full disk into NoSpace."""
    try:
        yield
    except OSError as error:
        raise NoSpace(error.errno, error.strerror, str(path)) if is_full(error) else error from None


def map_shared_array(path: str, mode: str, shape: tuple[int, ...], dtype: type[np.generic]) -> npt.NDArray[np.generic]:
    """The trial's side: the first values of the file as an array in memory; mode is "r" or "r+"."""
    return np.memmap(path, dtype=dtype, mode="r" if mode == "r" else "r+", shape=shape)
