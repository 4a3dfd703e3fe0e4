"""The text that a score is measured on: held-out documents in order, in rows that cover each byte exactly once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from core.data.ragged import Ragged, open_ragged, write_ragged
from core.data.tokenizer import Tokenizer
from core.records import UserError

# Part of every yardstick: raised whenever what a score covers, or how it is counted, changes its meaning.
SCORING_VERSION = 1


@dataclass(frozen=True)
class Rows:
    """Windows of the scored stream, int32 [B, T] each: row b's targets are its inputs moved by one.

    `bytes_BT` holds the number of UTF-8 bytes that each target stands for; a target with 0 doesn't count (a BOS, or the
    padding after the last document).
    """

    inputs_BT: npt.NDArray[np.int32]  # noqa: N815
    targets_BT: npt.NDArray[np.int32]  # noqa: N815
    bytes_BT: npt.NDArray[np.int32]  # noqa: N815


class ScoredText:
    """Held-out documents as one stream of ids, each document after a BOS.

    Attributes:
        documents: the documents' UTF-8 bytes, in the order in which they are scored.
        bytes: how many bytes they have.
        yardstick: SHA-256 over them and the scoring version; the same for every vocabulary, length and batch.
    """

    def __init__(self, documents: Iterable[bytes], tokenizer: Tokenizer) -> None:
        self.documents = tuple(documents)
        self.bytes = sum(map(len, self.documents))
        hashed = hashlib.sha256(f"scoring {SCORING_VERSION}\n".encode())
        for document in self.documents:
            hashed.update(len(document).to_bytes(8, "big"))
            hashed.update(document)
        self.yardstick = hashed.hexdigest()
        self._tokenizer = tokenizer

    @cached_property
    def stream(self) -> npt.NDArray[np.int32]:
        """All ids, int32 [N]."""
        bos = np.array([self._tokenizer.bos], dtype=np.int32)
        encoded = self._tokenizer.encode_stream(document.decode() for document in self.documents)
        pieces = [piece.astype(np.int32) for ids in encoded for piece in (bos, ids)]
        return np.concatenate([np.empty(0, dtype=np.int32), *pieces])

    def rows(self, length: int) -> Rows:
        """The stream in consecutive windows of `length` targets, the last one padded with BOS that don't count."""
        if length < 1:
            raise UserError(f"expected rows of at least 1 token, got {length}; set sequence_length")
        bos = self._tokenizer.bos
        count = -(-max(len(self.stream) - 1, 0) // length)
        padded = np.full(count * length + 1, bos, dtype=np.int32)
        padded[: len(self.stream)] = self.stream
        targets_BT = padded[1:].reshape(count, length)
        return Rows(padded[:-1].reshape(count, length), targets_BT, self._tokenizer.byte_lengths[targets_BT])


def write_held_out(path: Path, texts: Iterable[str]) -> None:
    """Store a held-out split in the order of scoring, by the SHA-256 of each text; of equal texts one."""
    distinct = {hashlib.sha256(data).digest(): data for data in (text.encode() for text in texts)}
    rows = (np.frombuffer(distinct[key], dtype=np.uint8) for key in sorted(distinct))
    write_ragged(path, rows, np.uint8, {})


def open_held_out(path: Path) -> Ragged | None:
    """The documents that `write_held_out` stored, as rows of bytes; None if missing or damaged."""
    return open_ragged(path, np.uint8)


def first_bytes(held_out: Ragged, score_bytes: int) -> Iterator[bytes]:
    """The first documents, whole, until they have `score_bytes` bytes together; all if there are fewer."""
    needed = int(np.searchsorted(held_out.offsets, score_bytes))
    return (held_out[row].tobytes() for row in range(min(needed, len(held_out))))
