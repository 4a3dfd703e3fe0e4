"""The corpus `folder:PATH`: a user's own text, JSON-lines and Parquet files, split by the hash of each document."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import os
import stat
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from core.data.corpora import base
from core.data.corpora.base import OnStage, Part, Split, not_blank, split_of
from core.data.corpora.parquet import parquet_parts, uncompressed
from core.records import UserError
from core.system.files import (
    cache_root,
    decode,
    digest,
    file_sha256,
    os_errors_as_user_errors,
    parse_json,
    read_json,
    write_json,
)

TEXTS, LINES, TABLES = (".txt", ".md"), (".jsonl",), (".parquet",)
LIKE_LINES = (".json", ".ndjson")  # what others call lines; a .json file may also be one value
COMPRESSED = (".gz", ".zst")  # behind the suffix of a text or of lines
SUFFIXES = (*TEXTS, *LINES, *TABLES, *(f"{suffix}{packed}" for suffix in (*TEXTS, *LINES) for packed in COMPRESSED))
KINDS = ".txt, .md, .jsonl (each also with .gz or .zst) and .parquet"
COMPRESSION = 3  # about so many times as long is text that was compressed; for progress alone
READING = 1  # raised when the same files give other documents
LONG_FILE = 65_536  # characters: a text file beyond that is no single document
PIECE = 8_192  # characters that a document cut from such a file has at most
SETTLED = 2 * 10**9  # nanoseconds: a younger file could change again without a change of its times
SHOWN = 5  # suffixes that are named of those that are left out
EVERY_SPLIT: frozenset[Split] = frozenset(("train", "val", "test"))


@dataclass(frozen=True)
class _TextFiles:
    paths: Sequence[Path]
    size: int
    splits: frozenset[Split] = EVERY_SPLIT

    def documents(self) -> Iterator[tuple[Split, str]]:
        for path in self.paths:
            with _opened(path) as file:
                data = b"".join(_read_lines(file, path))
            for text in not_blank(cut(decode(data, path))):
                yield split_of(text), text


@dataclass(frozen=True)
class _Lines:
    """The lines of a .jsonl file that start within [start, end) of its text; `size` is the number of bytes in it."""

    path: Path
    start: int
    end: int | None  # None: to the end
    size: int
    splits: frozenset[Split] = EVERY_SPLIT

    def documents(self) -> Iterator[tuple[Split, str]]:
        with _opened(self.path) as file:
            position = self.start
            if position:
                file.seek(position - 1)
                # A line that starts before `start` is the previous part's.
                position += len(file.readline()) - 1
            for line in _read_lines(file, self.path):
                if self.end is not None and position >= self.end:
                    return
                if not line.isspace():
                    for text in not_blank([self._text(line, position)]):
                        yield split_of(text), text
                position += len(line)

    def _text(self, line: bytes, position: int) -> str:
        """The document in a line; empty for a null, which a Parquet file may have for a text too."""
        if position == 0 and line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise UserError(f"{self.path}: expected lines of UTF-8 text, got UTF-16; save it as UTF-8")
        text: object = 0
        with contextlib.suppress(ValueError, KeyError, TypeError):
            text = parse_json(line)["text"]
        if text is not None and not isinstance(text, str):
            raise UserError(
                f'expected each line of {self.path} to be JSON with a string "text", got {line[:60]!r} at byte '
                f"{position}; mend the line or move the file out of the folder"
            )
        return text or ""


class FolderCorpus:
    """Files of text below a folder, in the order of their paths; hidden ones are left out.

    A text file is one document, or, where it is longer than 65,536 characters, many: cut at blank lines. Links are
    followed; a folder that several of them lead to is read once.
    """

    def __init__(self, root: Path) -> None:
        self.name = f"folder:{root}"
        self._root = root
        if not root.is_dir():
            raise UserError(f"expected a folder of documents, but {root} is not one; name it: `--corpus folder:PATH`")
        found = _Found(root)
        self._files = sorted(found.files)
        self.left_out = found.left_out()
        if not self._files:
            raise UserError(
                f"expected {KINDS} files in {root}, found {self.left_out or 'none'}; put some there or name another "
                "folder: `--corpus folder:PATH`"
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
            kind, packed = _kind(name)
            length = _status(path).st_size * (COMPRESSION if packed else 1)
            if kind in TABLES:
                yield from parquet_parts(path, lambda _, text: split_of(text), EVERY_SPLIT)
            elif kind in LINES and packed:  # only readable from its beginning
                yield _Lines(path, 0, None, length)
            elif kind in LINES:
                for start in range(0, length, base.PART_BYTES):
                    end = min(start + base.PART_BYTES, length)
                    yield _Lines(path, start, end, end - start)
            else:
                texts.append(path)
                size += length
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
            status = _status(path)
            times = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
            before = known.get(name)
            if isinstance(before, list) and before[:3] == times:
                now[name] = before
                continue
            with os_errors_as_user_errors(path):
                settled = time.time_ns() - max(times[1:]) > SETTLED
                now[name] = [*(times if settled else (0, 0, 0)), file_sha256(path)]  # zeros: hashed again next time
        if now != known:
            with contextlib.suppress(OSError):  # of a cache that may only be read: it only takes longer
                write_json(memory, now)
        return [(name, str(now[name][3])) for name in self._files]


class _Found:
    """The files of documents below a folder, and what else is there."""

    def __init__(self, root: Path) -> None:
        self.files: list[str] = []
        self._suffixes: Counter[str] = Counter()
        self._again: list[str] = []  # links to folders that were read already
        self._root = root
        self._folders: set[tuple[int, int]] = set()
        self._walk(root)

    def left_out(self) -> str:
        """What is there and is not read, in words; empty if nothing is."""
        words = []
        if self._suffixes:
            count = self._suffixes.total()
            shown = [f"{count} {suffix}" for suffix, count in self._suffixes.most_common(SHOWN)]
            more = ["..."] if len(self._suffixes) > SHOWN else []
            words.append(f"{count} other file{'s' * (count > 1)} ({', '.join(shown + more)})")
            if named := next((suffix for suffix in self._suffixes if suffix.startswith(LIKE_LINES)), ""):
                read = LINES[0] + _kind(f"a{named}")[1]
                words[-1] += f"; {named} files with a JSON document a line are read when they are named {read}"
        if self._again:
            more = ["..."] if len(self._again) > SHOWN else []
            words.append(f"links to folders that are read already ({', '.join(self._again[:SHOWN] + more)})")
        return " and ".join(words)

    def _walk(self, folder: Path) -> None:
        with os_errors_as_user_errors(folder):
            status = folder.stat()
            entries = sorted(os.scandir(folder), key=lambda entry: (entry.is_symlink(), entry.name))
        self._folders.add((status.st_dev, status.st_ino))
        for entry in entries:  # links last: a folder is read where it lies
            if entry.name.startswith("."):
                continue
            path = Path(entry.path)
            name = path.relative_to(self._root).as_posix()
            if entry.is_dir():
                status = path.stat()
                if (status.st_dev, status.st_ino) in self._folders:
                    self._again.append(name)
                else:
                    self._walk(path)
            elif path.name.lower().endswith(SUFFIXES):
                self.files.append(name)
            else:
                self._suffixes["".join(_kind(name)) or "without a suffix"] += 1


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


def _kind(name: str) -> tuple[str, str]:
    """Of a file's name its suffix, and the one of its compression; empty if it isn't compressed."""
    path = Path(name.lower())
    return (path.with_suffix("").suffix, path.suffix) if path.suffix in COMPRESSED else (path.suffix, "")


def _status(path: Path) -> os.stat_result:
    """UserError unless it is a regular file that is there: reading a FIFO would wait for ever."""
    with os_errors_as_user_errors(path):
        if path.is_symlink() and not path.exists():
            raise UserError(f"{path} is a link to {path.readlink()}, which is missing; mend the link or remove it")
        status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{path} is no regular file but a pipe, a socket or a device; move it out of the folder")
    return status


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The file's bytes, uncompressed."""
    _, packed = _kind(path.name)
    with contextlib.ExitStack() as stack:
        with os_errors_as_user_errors(path):
            file: Any = stack.enter_context(path.open("rb"))
        if packed == ".gz":
            file = stack.enter_context(gzip.GzipFile(fileobj=file))
        elif packed:
            file = stack.enter_context(uncompressed(path, file, "zstd"))
        yield file


def _read_lines(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """The lines that are left in the file. UserError if it is damaged."""
    try:
        yield from file
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} can't be read: {error}; restore it, or move it out of the folder") from error
