"""Token shards: the ids of the training documents, memory-mapped. Packing them into rows is `packing.py`'s."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from core.data.corpora.base import OnStage, Part
from core.data.ragged import Ragged, open_ragged, write_ragged
from core.data.tokenizer import Tokenizer
from core.system.files import delete_leftovers, read_json, write_json

PROGRESS_BYTES = 1 << 19  # of text between two reports


class TokenShards:
    """Documents as token ids, each with its BOS in front, in one or more memory-mapped arrays.

    Attributes:
        values: the arrays, uint16 or uint32 by the size of the vocabulary.
        shard_of, starts, lengths: int64 [documents]; document i is values[shard_of[i]][starts[i]:][:lengths[i]].
        tokens: ids in all of them, BOS included.
        bytes: UTF-8 bytes of the documents.
    """

    def __init__(self, shards: Sequence[Ragged]) -> None:
        self.values: list[npt.NDArray[Any]] = [shard.values for shard in shards]
        sizes = [len(shard) for shard in shards]
        none = np.empty(0, dtype=np.int64)
        self.shard_of: npt.NDArray[np.int64] = np.repeat(np.arange(len(shards), dtype=np.int64), sizes)
        self.starts: npt.NDArray[np.int64] = np.concatenate([none, *(shard.offsets[:-1] for shard in shards)])
        self.lengths: npt.NDArray[np.int64] = np.concatenate([none, *(np.diff(shard.offsets) for shard in shards)])
        self.tokens = int(self.lengths.sum())
        self.bytes = sum(int(shard.note.get("bytes", 0)) for shard in shards)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, document: int) -> npt.NDArray[Any]:
        start = self.starts[document]
        values: npt.NDArray[Any] = self.values[self.shard_of[document]]
        return values[start : start + self.lengths[document]]


def open_shards(folder: Path, tokenizer: Tokenizer) -> TokenShards | None:
    """The shards in `folder`, checked; None if one is missing, unfinished or damaged."""
    count = (read_json(folder / "shards.json") or {}).get("shards")
    if not isinstance(count, int) or not count:
        return None
    with ThreadPoolExecutor() as threads:  # a checksum frees the interpreter
        shards = list(threads.map(lambda n: open_ragged(_path(folder, n), tokenizer.dtype), range(count)))
    whole = [shard for shard in shards if shard is not None]
    return TokenShards(whole) if len(whole) == count else None


def build_shards(folder: Path, parts: Sequence[Part], tokenizer: Tokenizer, on_progress: OnStage) -> None:
    """Encode each part's training documents into a shard of its own; a shard that is there and whole stays.

    Each shard appears at once, so that a build that was killed goes on with the shard that it was at. Call it only
    while holding the lock of the corpus.
    """
    folder.mkdir(parents=True, exist_ok=True)
    delete_leftovers(folder)
    training = [part for part in parts if "train" in part.splits]
    total = sum(part.size for part in training)
    before = 0
    for number, part in enumerate(training):
        on_progress("tokens", before, total)
        if open_ragged(_path(folder, number), tokenizer.dtype) is None:

            def on_bytes(done: int, before: int = before, size: int = part.size) -> None:
                on_progress("tokens", before + min(done, size), total)

            _write_shard(_path(folder, number), part, tokenizer, on_bytes)
        before += part.size
    write_json(folder / "shards.json", {"shards": len(training)})
    on_progress("tokens", total, total)


def _write_shard(path: Path, part: Part, tokenizer: Tokenizer, on_bytes: Callable[[int], None]) -> None:
    note = {"bytes": 0}

    def texts() -> Iterator[str]:
        read = reported = 0
        for split, text in part.documents():
            size = len(text.encode())
            read += size
            if read - reported >= PROGRESS_BYTES:
                on_bytes(reported := read)
            if split == "train":
                note["bytes"] += size
                yield text

    bos = np.array([tokenizer.bos], dtype=tokenizer.dtype)
    rows = (np.concatenate([bos, ids.astype(tokenizer.dtype)]) for ids in tokenizer.encode_stream(texts()))
    write_ragged(path, rows, tokenizer.dtype, note)


def sample(parts: Sequence[Part], characters: int, document: int) -> Iterator[str]:
    """Training documents of `characters` characters in all, where none counts for more than `document`.

    Every part gives an equal share from its beginning; what one lacks comes from the later ones.
    """
    training = [part for part in parts if "train" in part.splits]
    left = characters
    for number, part in enumerate(training):
        share = left // (len(training) - number)
        for split, text in part.documents() if share else ():
            if split != "train":
                continue
            if share <= 0:
                break
            yield text
            share -= min(len(text), document)
            left -= min(len(text), document)


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}"
