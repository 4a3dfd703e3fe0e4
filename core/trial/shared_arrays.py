"""Arrays that pass between supervisor and trial in files: the trial maps them into memory, the supervisor does not.

A trial that shortened a file would end a supervisor that had mapped it with a bus error.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from core.system.files import is_full


class NoSpace(OSError):
    """The disk that a trial's scratch is on is full."""


class SharedArray:
    """The supervisor's side: a file of fixed size in bytes."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        with raising_no_space(path):
            self._file = open(os.open(path, flags, 0o600), "r+b", buffering=0)  # noqa: SIM115  closed by close()
            self._file.truncate(size)

    @classmethod
    def fitting(cls, before: Self | None, folder: Path, name: str, size: int) -> Self:
        """`before` if it has that many bytes, else a new file that takes its place."""
        if before is not None and before.size >= size:
            return before
        if before is not None:
            before.close()
        return cls(folder / f"{name}-{size}", size)

    def write(self, *arrays: npt.NDArray[np.generic]) -> None:
        """Writes the arrays one after the other from the start of the file. NoSpace where its disk is full."""
        self._file.seek(0)
        with raising_no_space(self.path):
            for array in arrays:
                view = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
                while view:
                    view = view[self._file.write(view) :]

    def read(self, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """Float32 values from the start of the file. OSError if it is shorter than that."""
        out = np.empty(shape, np.float32)
        view = out.reshape(-1).view(np.uint8).data
        self._file.seek(0)
        while view:
            count = self._file.readinto(view)
            if not count:
                raise OSError("the file of an array was cut short by the trial")
            view = view[count:]
        return out

    def close(self) -> None:
        """Closes the file; who owns its folder deletes it."""
        self._file.close()


@contextlib.contextmanager
def raising_no_space(path: Path) -> Iterator[None]:
    """Turns the system's error of a full disk into NoSpace."""
    try:
        yield
    except OSError as error:
        raise NoSpace(error.errno, error.strerror, str(path)) if is_full(error) else error from None


def map_shared_array(
    path: str, mode: Literal["r", "r+"], shape: tuple[int, ...], dtype: type[np.generic]
) -> npt.NDArray[np.generic]:
    """The trial's side: the first values of the file as an array in memory."""
    return np.memmap(path, dtype=dtype, mode=mode, shape=shape)
