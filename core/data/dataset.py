"""`prepare` opens a corpus by its name as a Dataset, and builds what is missing of it."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from core.data import tokenizer as tokenizers
from core.data.corpora.base import HELD_OUT, Corpus, OnStage, Part, Split
from core.data.corpora.registry import find
from core.data.ragged import Ragged
from core.data.scored import ScoredText, first_bytes, open_held_out, write_held_out
from core.data.shards import TokenShards, build_shards, open_shards, sample
from core.data.tokenizer import Tokenizer
from core.records import UserError, check_vocabulary
from core.system.files import cache_root, delete_leftovers, digest, os_errors_as_user_errors

LEAST_SCORED = 5  # documents: a score on fewer is more about these than about the language


@dataclass(frozen=True)
class Dataset:
    """A corpus, encoded: what trials train on and what they are scored on."""

    corpus: str
    tokenizer: Tokenizer
    train: TokenShards
    val: Ragged = field(repr=False)  # documents as rows of UTF-8 bytes, in the order in which they are scored
    test: Ragged = field(repr=False)
    left_out: str = ""  # what lies beside the corpus's documents and isn't read, in words; empty for nothing
    _scored: dict[tuple[str, int], ScoredText] = field(default_factory=dict, repr=False, compare=False)

    def scored(self, split: Literal["val", "test"], score_bytes: int) -> ScoredText:
        """The first documents of a held-out split, whole, until they have `score_bytes` bytes; all if it has fewer.

        The order is by the hash of a document, so neither vocabulary nor length nor batch changes what is scored.
        """
        if split not in HELD_OUT or score_bytes < 1:
            raise UserError(f"expected val or test and at least 1 byte to score, got {split} and {score_bytes}")
        if (split, score_bytes) not in self._scored:
            documents = first_bytes(self.val if split == "val" else self.test, score_bytes)
            self._scored[split, score_bytes] = ScoredText(documents, self.tokenizer)
        return self._scored[split, score_bytes]

    def warnings(self, score_bytes: int) -> list[str]:
        """What makes scores on this text poor, a sentence each; empty if nothing does."""
        found = []
        for name, text in (("validation", self.scored("val", score_bytes)), ("test", self.scored("test", score_bytes))):
            count = len(text.documents)
            if count < LEAST_SCORED:
                documents = "one document" if count == 1 else f"{count} documents"
                found.append(
                    f"{name} is {documents}, fewer than {LEAST_SCORED}: scores say how well a model fits these, "
                    f"not how well it learned; give {self.corpus} more or shorter documents"
                )
        return found

    def sizes(self) -> dict[Split, tuple[int, int]]:
        """Documents and UTF-8 bytes of each split."""
        return {
            "train": (len(self.train), self.train.bytes),
            "val": (len(self.val), len(self.val.values)),
            "test": (len(self.test), len(self.test.values)),
        }


def prepare(
    corpus: str,
    vocabulary: int,
    *,
    on_progress: OnStage | None = None,
    on_notice: Callable[[str], None] = lambda line: None,
) -> Dataset:
    """Open `corpus` encoded with `vocabulary` ids; first download, train and encode what is missing or damaged.

    `on_progress(stage, done, total)` is called while something is built, `on_notice` first gets a line if files of the
    corpus are left out. If two processes prepare at once, one builds and the other waits. After a kill at any moment,
    the next call goes on. UserError for a corpus that can't be had, and for a cache that can't be used.
    """
    report = on_progress or (lambda stage, done, total: None)
    check_vocabulary(vocabulary)
    found = find(corpus)
    with os_errors_as_user_errors(cache_root()):
        if dataset := _open(found, vocabulary):
            return dataset
        if found.left_out:
            on_notice(f"{found.name}: left out {found.left_out}")
        with _locked(digest(found.lock)[:24], report):
            dataset = _open(found, vocabulary)  # another process may have built it meanwhile
            if dataset is None:
                found.fetch(report)
                _build(found, vocabulary, report)
                dataset = _open(found, vocabulary)
    if dataset is None:
        raise UserError(
            f"{cache_root()} was changed while {found.name} was prepared; run `autoresearch prepare` again, and if "
            "this comes back, check the disk"
        )
    return dataset


def prepared(corpus: str, vocabulary: int) -> Dataset | None:
    """The dataset if all of it is in the cache and whole, else None. Nothing is downloaded or built."""
    with os_errors_as_user_errors(cache_root()):
        return _open(find(corpus), vocabulary)


@contextlib.contextmanager
def _locked(name: str, on_progress: OnStage) -> Iterator[None]:
    """Hold the lock `name` among all processes of this cache; the system frees it when its holder dies."""
    from filelock import FileLock, Timeout  # takes as long to import as NumPy

    folder = cache_root() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{name}.lock")
    while True:
        try:
            lock.acquire(timeout=1.0)
            break
        except Timeout:
            on_progress("wait for another prepare", 0, 1)
        except NotImplementedError as error:
            raise OSError(errno.ENOLCK, "its file system has no locks", str(folder)) from error
    try:
        yield
    finally:
        lock.release()


def _open(corpus: Corpus, vocabulary: int) -> Dataset | None:
    identity = corpus.identity()
    if identity is None:
        return None
    val, test = (open_held_out(_corpus_folder(identity) / split) for split in HELD_OUT)
    tokenizer = Tokenizer.load(_tokenizer_path(identity, vocabulary))
    if val is None or test is None or tokenizer is None or tokenizer.vocabulary != vocabulary:
        return None
    train = open_shards(_tokens_folder(identity, tokenizer), tokenizer)
    return None if train is None else Dataset(corpus.name, tokenizer, train, val, test, corpus.left_out)


def _build(corpus: Corpus, vocabulary: int, on_progress: OnStage) -> None:
    identity = corpus.identity()
    assert identity is not None, "a corpus knows its identity once it is fetched"
    parts = corpus.parts()
    _hold_out(corpus.name, _corpus_folder(identity), parts, on_progress)
    path = _tokenizer_path(identity, vocabulary)
    tokenizer = Tokenizer.load(path)
    if tokenizer is None:
        on_progress("tokenizer", 0, 1)
        texts = sample(parts, tokenizers.SAMPLE_CHARACTERS, tokenizers.SAMPLE_DOCUMENT)
        tokenizer = tokenizers.train(texts, vocabulary)
        tokenizer.save(path)
        on_progress("tokenizer", 1, 1)
    build_shards(_tokens_folder(identity, tokenizer), parts, tokenizer, on_progress)


def _hold_out(name: str, folder: Path, parts: Sequence[Part], on_progress: OnStage) -> None:
    if all(open_held_out(folder / split) for split in HELD_OUT):
        return
    with contextlib.suppress(FileNotFoundError):
        delete_leftovers(folder)
    texts: dict[Split, list[str]] = {split: [] for split in HELD_OUT}
    holding = [part for part in parts if not part.splits.isdisjoint(HELD_OUT)]
    trained_on = any("train" in part.splits and part not in holding for part in parts)
    for number, part in enumerate(holding):
        on_progress("held-out documents", number, len(holding))
        for split, text in part.documents():
            if split == "train":
                trained_on = True
            else:
                texts[split].append(text)
    on_progress("held-out documents", len(holding), len(holding))
    if empty := [split for split in HELD_OUT if not texts[split]] + ([] if trained_on else ["train"]):
        documents = [hash(text) for part in holding for _, text in part.documents()]
        count, different = len(documents), len(set(documents))
        equal = f" ({different} without those that are equal)" if different < count else ""
        raise UserError(
            f"expected documents in every split of {name}, but by the hash of their text none of {count} "
            f"documents{equal} fell to {' and '.join(empty)}; add documents: from about 100 different ones on, each "
            "split has some"
        )
    for split in HELD_OUT:
        write_held_out(folder / split, texts[split])


def _corpus_folder(identity: str) -> Path:
    return cache_root() / "corpora" / identity[:24]


def _tokenizer_path(identity: str, vocabulary: int) -> Path:
    return cache_root() / "tokenizers" / f"{tokenizers.key(identity, vocabulary)[:24]}.json"


def _tokens_folder(identity: str, tokenizer: Tokenizer) -> Path:
    return cache_root() / "tokens" / digest(identity, tokenizer.identity)[:24]
