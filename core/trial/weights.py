"""The file of weights that training leaves: taken over from the trial's scratch, checked, counted, hashed."""

from __future__ import annotations

import math
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from safetensors import SafetensorError, safe_open

from core.system.files import file_sha256, move
from core.trial.process import TrialFailed

MAX_BYTES = 64 * 2**30
_PART_BYTES = 64 * 2**20  # read at once: a sparse file costs its trainer nothing
_DTYPES = {"F64", "F32", "F16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"}


@dataclass(frozen=True)
class Weights:
    """What was handed over."""

    path: Path
    parameters: int
    sha256: str


def take(source: Path, target: Path) -> None:
    """Moves the file out of the trial's reach. TrialFailed if it is no regular file, or larger than this memory."""
    try:
        status = source.lstat()
    except OSError:
        raise TrialFailed("handed over no weights") from None
    most = min(MAX_BYTES, psutil.virtual_memory().total)
    if not stat.S_ISREG(status.st_mode) or status.st_size > most:
        raise TrialFailed(f"the weights are no regular file of at most {most / 2**30:.0f} GiB", "invalid")
    move(source, target)


def inspect(path: Path) -> Weights:
    """Reads every tensor once. TrialFailed for one that is not numeric or not finite."""
    parameters = 0
    try:
        with safe_open(path, framework="numpy") as tensors:
            for name in sorted(tensors.keys()):
                if (dtype := tensors.get_slice(name).get_dtype()) not in _DTYPES:
                    raise TrialFailed(f"weight {name[:80]!r} is {dtype}, not float16/32/64 or an integer")
                for part in _parts(tensors.get_slice(name)):
                    parameters += part.size
                    if part.dtype.kind == "f" and not np.isfinite(part).all():
                        raise TrialFailed(f"weight {name[:80]!r} is not finite")
    except SafetensorError as error:
        raise TrialFailed(f"the weights are no safetensors file: {error}") from None
    return Weights(path, parameters, file_sha256(path))


def check_unchanged(weights: Weights) -> None:
    """TrialFailed if the file is not what was inspected: whoever can write it could leave word for an auditor."""
    if weights.path.is_symlink() or not weights.path.is_file() or file_sha256(weights.path) != weights.sha256:
        raise TrialFailed("the weights were changed while they were scored", "invalid")


def _parts(tensor: Any) -> Iterator[np.ndarray[Any, Any]]:
    """A safetensors slice in parts along its first axis."""
    shape = tensor.get_shape()
    if not shape:
        yield tensor[...]
        return
    row_bytes = 8 * math.prod(shape[1:])  # at most
    step = max(1, _PART_BYTES // max(1, row_bytes))
    for first in range(0, shape[0], step):
        yield tensor[first : min(first + step, shape[0])]


def permuted(source: Path, target: Path, random: np.random.Generator, kinds: str) -> Path:
    """Writes the same weights with the values of each array in another order.

    Only arrays of these kinds (NumPy's letters), and of 16 values or more: what is smaller may be a size or an index.
    """
    from safetensors.numpy import load_file, save_file

    arrays = load_file(source)
    for name, array in arrays.items():
        if array.size >= 16 and array.dtype.kind in kinds:
            arrays[name] = random.permutation(array.reshape(-1)).reshape(array.shape)
    save_file(arrays, target)
    return target
