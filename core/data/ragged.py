"""Rows of unequal length on disk: one flat file of values, one of offsets, and a manifest with checksums.

Held-out texts are rows of bytes, token shards rows of ids.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from core.system.files import read_json, replacing, write_json

FORMAT = 1
CHUNK = 1 << 24  # bytes read at once for a checksum


@dataclass(frozen=True, eq=False, repr=False)
class Ragged:
    """Rows on disk, memory-mapped; row i is values[offsets[i]:offsets[i + 1]]."""

    values: npt.NDArray[Any]  # all rows one after the other, [sum of lengths]
    offsets: npt.NDArray[np.int64]  # [rows + 1]
    note: dict[str, Any]  # what the writer recorded about the rows

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> npt.NDArray[Any]:
        return self.values[self.offsets[row] : self.offsets[row + 1]]


def write_ragged(path: Path, rows: Iterable[npt.NDArray[Any]], dtype: npt.DTypeLike, note: dict[str, Any]) -> None:
    """Write `rows` as PATH.values, PATH.offsets and PATH.json.

    `note` is read after the last row, so that it can hold what was counted meanwhile. The manifest is written last:
    without it, or with an older one, `open_ragged` returns None.
    """
    kind = np.dtype(dtype).newbyteorder("<")
    lengths: list[int] = []
    checksum = 0
    with replacing(_part(path, "values")) as values:
        for row in rows:
            data = np.ascontiguousarray(row, dtype=kind).tobytes()
            values.write(data)
            checksum = zlib.crc32(data, checksum)
            lengths.append(len(row))
    offsets = np.zeros(len(lengths) + 1, dtype="<i8")
    np.cumsum(lengths, out=offsets[1:])
    with replacing(_part(path, "offsets")) as file:
        file.write(offsets.tobytes())
    manifest = {
        "format": FORMAT,
        "dtype": kind.str,
        "rows": len(lengths),
        "values": int(offsets[-1]),
        "values_crc32": checksum,
        "offsets_crc32": zlib.crc32(offsets.tobytes()),
        "note": note,
    }
    write_json(_part(path, "json"), manifest)


def open_ragged(path: Path, dtype: npt.DTypeLike) -> Ragged | None:
    """The rows written to `path`, every byte of them checked; None if missing, unfinished or damaged.

    Raises OSError if they are there and can't be read. CRC-32 runs at memory speed (2.6 GB/s a core where it was
    measured), so a check at every start is cheap.
    """
    manifest = read_json(_part(path, "json")) or {}
    kind = np.dtype(dtype).newbyteorder("<")
    try:
        if manifest["format"] != FORMAT or manifest["dtype"] != kind.str:
            return None
        offsets = np.fromfile(_part(path, "offsets"), dtype="<i8")
        rows, count = int(manifest["rows"]), int(manifest["values"])
        if len(offsets) != rows + 1 or zlib.crc32(offsets.tobytes()) != manifest["offsets_crc32"]:
            return None
        if _part(path, "values").stat().st_size != count * kind.itemsize:
            return None
        # An empty file can't be mapped. A plain array, since slices of a memmap object cost several times as much.
        values = np.asarray(np.memmap(_part(path, "values"), dtype=kind, mode="r")) if count else np.empty(0, kind)
        if _crc32(values.view(np.uint8)) != manifest["values_crc32"]:
            return None
        return Ragged(values, offsets, dict(manifest["note"]))
    except (FileNotFoundError, KeyError, TypeError, ValueError):
        return None


def _crc32(data: npt.NDArray[np.uint8]) -> int:
    checksum = 0
    for start in range(0, len(data), CHUNK):
        checksum = zlib.crc32(data[start : start + CHUNK].data, checksum)
    return checksum


def _part(path: Path, suffix: str) -> Path:
    return path.with_name(f"{path.name}.{suffix}")
