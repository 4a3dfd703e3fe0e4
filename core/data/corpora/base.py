"""What a corpus is: documents in parts, each document in one split for ever. Each other file here has one corpus."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, Protocol

from core.system.text import valid

OnStage = Callable[[str, int, int], None]  # is called with a stage's name, what is done and the total
Split = Literal["train", "val", "test"]
HELD_OUT: tuple[Split, Split] = ("val", "test")
PART_BYTES = 64 << 20  # of text in one part, about: a killed prepare repeats at most one part
BUCKETS = 20  # a hash puts one document of twenty into val, and one into test


class Part(Protocol):
    """A piece of a corpus that becomes one token shard; small enough to be encoded again if it is damaged."""

    @property
    def splits(self) -> frozenset[Split]:
        """The splits that its documents can be in."""

    @property
    def size(self) -> int:
        """About how many bytes of text it has, for progress."""

    def documents(self) -> Iterator[tuple[Split, str]]:
        """Its documents in their order, each with its split; the same ones at every call."""


class Corpus(Protocol):
    """Documents under a name."""

    name: str  # as `registry.find` takes it
    lock: str  # the same for all corpora that write the same files, and for no others
    left_out: str  # what lies beside the documents and isn't read, in words; empty for nothing

    def identity(self) -> str | None:
        """SHA-256 over all that decides the documents; None if that takes a download to know."""

    def fetch(self, on_progress: OnStage) -> None:
        """Download what is missing into the cache, and check it. UserError if that fails."""

    def parts(self) -> Sequence[Part]:
        """The parts, in their order. Only after `fetch`."""


def split_of(text: str) -> Split:
    """The split of a document, by the hash of its text: the rule never changes, and equal documents stay together."""
    bucket = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % BUCKETS
    return "val" if bucket == 0 else "test" if bucket == 1 else "train"


def not_blank(texts: Iterable[str]) -> Iterator[str]:
    """The texts that are not blank, made valid UTF-8."""
    return (valid(text) for text in texts if text and not text.isspace())
