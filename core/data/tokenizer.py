"""Byte-level BPE: rustbpe trains, tiktoken encodes. A vocabulary of 256 is plain bytes."""

from __future__ import annotations

import base64
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from core.records import UserError, check_vocabulary
from core.system.files import digest, read_json, write_json
from core.system.text import valid

BYTES = 256  # the vocabulary of plain bytes
# GPT-4's pattern for splitting text before merging, but with numbers in pieces of two digits, as nanochat and upstream
# have it for small vocabularies.
PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
SAMPLE_CHARACTERS = 64_000_000  # to train a tokenizer on, spread over the parts of the training split
SAMPLE_DOCUMENT = 10_000  # characters of one document that count, as upstream has it
# The splitter's backtracking overflows somewhere between 400,000 and a million blanks in a row, so that longer texts
# are encoded in pieces.
PIECE = 100_000
ENCODING_BATCH = 64  # documents that a thread takes at once
ENCODING_AHEAD = 64  # batches
_BOS_NAME = "<|bos|>"


class Tokenizer:
    """Text to ids and back.

    Attributes:
        vocabulary: number of ids, the special one included.
        bos: the id that starts a document. No text is ever encoded to it.
        byte_lengths: int32 [vocabulary], the bytes that each id stands for; 0 for the special one.
        identity: SHA-256 over everything that decides what `encode` returns.
    """

    def __init__(self, tokens: Sequence[bytes], pattern: str = PATTERN) -> None:
        """`tokens` are the raw bytes of each id in the order of the merges, without the special one.

        An empty sequence means plain bytes; BOS is 0xFF there, which occurs in no UTF-8 text, so that 256 ids suffice.
        """
        self.plain = not tokens
        self.pattern = pattern
        self.bos = BYTES - 1 if self.plain else len(tokens)
        self.vocabulary = self.bos + 1
        self._tokens = [bytes([byte]) for byte in range(BYTES - 1)] if self.plain else list(tokens)
        lengths = [len(token) for token in self._tokens]
        self.byte_lengths: npt.NDArray[np.int32] = np.array([*lengths, 0], dtype=np.int32)
        self.byte_lengths.flags.writeable = False
        self.identity = digest("tokenizer", "" if self.plain else pattern, [_text(token) for token in self._tokens])

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest of uint16 and uint32 that holds every id."""
        return np.dtype(np.uint16 if self.vocabulary <= 1 << 16 else np.uint32)

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, without BOS; text that looks like a special token is text."""
        return self._ids(valid(text)).tolist()  # type: ignore[no-any-return]

    def encode_stream(self, texts: Iterable[str]) -> Iterator[npt.NDArray[Any]]:
        """The ids of each text, which must be valid UTF-8, without BOS, as they are ready.

        As many threads as there are cores encode (tiktoken frees the interpreter), at most 64 batches ahead.
        """
        if self.plain:
            yield from map(self._ids, texts)
            return
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            source = iter(texts)
            batches = iter(lambda: list(itertools.islice(source, ENCODING_BATCH)), [])
            pending = [threads.submit(self._batch, batch) for batch in itertools.islice(batches, ENCODING_AHEAD)]
            while pending:
                yield from pending.pop(0).result()
                pending.extend(threads.submit(self._batch, batch) for batch in itertools.islice(batches, 1))

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes that `ids` stand for; special ones stand for none."""
        return b"".join([self._tokens[token] for token in ids if token != self.bos])

    def decode(self, ids: Iterable[int]) -> str:
        """The text that `ids` stand for; bytes that are no UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def save(self, path: Path) -> None:
        """Write the tokenizer as JSON."""
        data = {
            "identity": self.identity,
            "pattern": self.pattern,
            "vocabulary": self.vocabulary,
            "bos": self.bos,
            "trained_with": f"rustbpe {version('rustbpe')}",
            "tokens": [] if self.plain else [_text(token) for token in self._tokens],
        }
        write_json(path, data)

    @classmethod
    def load(cls, path: Path) -> Tokenizer | None:
        """The tokenizer that was saved; None if the file is missing or damaged."""
        data = read_json(path) or {}
        try:
            tokenizer = cls([base64.b64decode(token, validate=True) for token in data["tokens"]], data["pattern"])
            return tokenizer if tokenizer.identity == data["identity"] else None
        except (KeyError, TypeError, ValueError):
            return None

    def _batch(self, texts: Sequence[str]) -> list[npt.NDArray[Any]]:
        return [self._ids(text) for text in texts]

    def _ids(self, text: str) -> npt.NDArray[Any]:
        if self.plain:
            return np.frombuffer(text.encode(), dtype=np.uint8)
        if len(text) <= PIECE:
            return self._encode(text)
        return np.concatenate([self._encode(piece) for piece in _pieces(text)])

    def _encode(self, text: str) -> npt.NDArray[Any]:
        # With no special token allowed, none is ever recognized.
        ids: npt.NDArray[Any] = self._encoding.encode_to_numpy(text, allowed_special=set(), disallowed_special=())
        return ids

    @cached_property
    def _encoding(self) -> Any:
        import tiktoken

        ranks = {token: rank for rank, token in enumerate(self._tokens)}
        return tiktoken.Encoding(
            self.identity, pat_str=self.pattern, mergeable_ranks=ranks, special_tokens={_BOS_NAME: self.bos}
        )


def key(corpus_identity: str, vocabulary: int) -> str:
    """SHA-256 over everything that decides a trained tokenizer."""
    return digest(corpus_identity, PATTERN, vocabulary, SAMPLE_CHARACTERS, SAMPLE_DOCUMENT, version("rustbpe"))


def train(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Train on the first 10,000 characters of each text. UserError if they hold too few different pairs."""
    check_vocabulary(vocabulary)
    if vocabulary == BYTES:
        return Tokenizer(())
    import rustbpe

    trainer = rustbpe.Tokenizer()
    trainer.train_from_iterator((text[:SAMPLE_DOCUMENT] for text in texts), vocabulary - 1, pattern=PATTERN)
    tokens = [bytes(token) for token, _ in trainer.get_mergeable_ranks()]
    if len(tokens) != vocabulary - 1:
        raise UserError(
            f"expected a corpus with enough text for a vocabulary of {vocabulary}, but this one has only "
            f"{len(tokens) - BYTES} merges in it, for at most {len(tokens) + 1} ids; set a smaller vocabulary "
            f"(`--set vocabulary=256` is plain bytes and always works) or use a larger corpus"
        )
    return Tokenizer(tokens)


def _pieces(text: str) -> Iterator[str]:
    """`text` in pieces that tiktoken can take, cut after a line or a word where there is one."""
    start = 0
    while len(text) - start > PIECE:
        end = start + PIECE
        cut = max(text.rfind("\n", start, end), text.rfind(" ", start + PIECE // 2, end)) + 1
        end = cut if cut > start else end
        yield text[start:end]
        start = end
    yield text[start:]


def _text(token: bytes) -> str:
    return base64.b64encode(token).decode("ascii")
