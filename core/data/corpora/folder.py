"""The corpus `folder:PATH`: a user's own .txt, .md, .jsonl and .parquet files, split by the hash of each document."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from core.data.corpora import base
from core.data.corpora.base import OnStage, Part, Split, not_blank, split_of
from core.data.corpora.parquet import parquet_parts
from core.records import UserError
from core.system.files import cache_root, digest, file_sha256, read_json, write_json

SUFFIXES = (".txt", ".md", ".jsonl", ".parquet")
READING = 1  # raised when the same files give other documents
LONG_FILE = 65_536  # characters: a .txt or .md file beyond that is no single document
PIECE = 8_192  # characters that a document cut from such a file has at most
SETTLED = 2 * 10**9  # nanoseconds: a younger file could change again without a change of its times
EVERY_SPLIT: frozenset[Split] = frozenset(("train", "val", "test"))


@dataclass(frozen=True)
class _TextFiles:
    paths: Sequence[Path]
    size: int
    splits: frozenset[Split] = EVERY_SPLIT

    def documents(self) -> Iterator[tuple[Split, str]]:
        for path in self.paths:
            for text in not_blank(cut(_decoded(path, path.read_bytes()))):
                yield split_of(text), text


@dataclass(frozen=True)
class _Lines:
    """The lines of a .jsonl file that start within [start, end)."""

    path: Path
    start: int
    end: int
    splits: frozenset[Split] = EVERY_SPLIT

    @property
    def size(self) -> int:
        return self.end - self.start

    def documents(self) -> Iterator[tuple[Split, str]]:
        with self.path.open("rb") as file:
            if self.start:
                file.seek(self.start - 1)
                file.readline()  # a line that starts before `start` is the previous part's
            while (position := file.tell()) < self.end and (line := file.readline()):
                if not line.isspace():
                    for text in not_blank([self._text(line, position)]):
                        yield split_of(text), text

    def _text(self, line: bytes, position: int) -> str:
        text = None
        with suppress(ValueError, KeyError, TypeError):
            text = json.loads(line)["text"]
        if not isinstance(text, str):
            raise UserError(
                f'expected each line of {self.path} to be JSON with a string "text", got {line[:60]!r} at byte '
                f"{position}; mend the line or move the file out of the folder"
            )
        return text


class FolderCorpus:
    """Files of text below a folder, in the order of their paths; hidden ones are left out.

    A .txt or .md file is one document, or, where it is longer than 65,536 characters, many: cut at blank lines.
    """

    def __init__(self, root: Path) -> None:
        self.name = f"folder:{root}"
        self._root = root
        if not root.is_dir():
            raise UserError(f"expected a folder of documents, but {root} is not one; name it: `--corpus folder:PATH`")
        self._files = sorted(_files(root))
        if not self._files:
            raise UserError(
                f"expected {', '.join(SUFFIXES)} files in {root}, found none; put some there or name another folder: "
                "`--corpus folder:PATH`"
            )
        self.lock = digest("folder", READING, self._hashes())  # a copy of the folder elsewhere is the same corpus

    def identity(self) -> str:
        return self.lock

    def fetch(self, on_progress: OnStage) -> None:
        """Nothing to fetch: the files are here."""

    def parts(self) -> Sequence[Part]:
        return list(self._parts())

    def _parts(self) -> Iterator[Part]:
        texts: list[Path] = []
        size = 0
        for name in self._files:
            path = self._root / name
            if path.suffix.lower() == ".parquet":
                yield from parquet_parts(path, lambda _, text: split_of(text), EVERY_SPLIT)
            elif path.suffix.lower() == ".jsonl":
                length = path.stat().st_size
                for start in range(0, length, base.PART_BYTES):
                    yield _Lines(path, start, min(start + base.PART_BYTES, length))
            else:
                texts.append(path)
                size += path.stat().st_size
                if size >= base.PART_BYTES:
                    yield _TextFiles(tuple(texts), size)
                    texts.clear()
                    size = 0
        if texts:
            yield _TextFiles(tuple(texts), size)

    def _hashes(self) -> list[tuple[str, str]]:
        """Each file's path in the folder and SHA-256, which is cached while its size and times stay the same."""
        memory = cache_root() / "folders" / f"{digest(str(self._root))[:24]}.json"
        known = read_json(memory) or {}
        now: dict[str, list[int | str]] = {}
        for name in self._files:
            path = self._root / name
            status = path.stat()
            times = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
            before = known.get(name)
            if isinstance(before, list) and before[:3] == times:
                now[name] = before
            elif time.time_ns() - max(times[1:]) > SETTLED:
                now[name] = [*times, file_sha256(path)]
            else:
                now[name] = [0, 0, 0, file_sha256(path)]  # hashed again next time
        if now != known:
            write_json(memory, now)
        return [(name, str(now[name][3])) for name in self._files]


def cut(text: str) -> Iterator[str]:
    """A long file's text as documents of at most 8,192 characters, cut after a blank line, a line or a word."""
    start = 0
    if len(text) > LONG_FILE:
        while len(text) - start > PIECE:
            end = start + PIECE
            for mark in ("\n\n", "\n", " "):
                found = text.rfind(mark, start + PIECE // 4, end)
                if found >= 0:
                    end = found + len(mark)
                    break
            yield text[start:end]
            start = end
    yield text[start:]


def _files(root: Path) -> Iterator[str]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and name.lower().endswith(SUFFIXES):
                yield (Path(folder) / name).relative_to(root).as_posix()


def _decoded(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"expected {path} to be UTF-8 text, but byte {error.start} is not; convert it or move it out of the folder"
        ) from error
