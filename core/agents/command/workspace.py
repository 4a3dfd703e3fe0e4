"""The folder that a coding agent works in: what is written into it, and what is taken from it at the end.

Whatever is found there was made by a program that nobody trusts: nothing is followed, run or read beyond its limit.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from core.records import TRAINER
from core.system.signals import signals_blocked

HYPOTHESIS, LESSON = "hypothesis.txt", "lesson.txt"
TRAINER_BYTES = 2**20  # the reference trainers have a fortieth of it
HYPOTHESIS_CHARACTERS, LESSON_CHARACTERS = 2000, 300
LOOKED_AT = 5000  # entries of the folder that are held against what was written there


class UnusableFile(Exception):
    """A file that can't be taken; the text says why."""


@dataclass(frozen=True)
class Answer:
    """What the command left. `fault` says why there is no text."""

    text: str | None
    fault: str
    hypothesis: str
    lesson: str
    others: str  # what else it changed, in a line; empty where nothing was


class Workspace:
    """A folder of its own among the temporary files. A context manager: it is deleted on leaving."""

    def __init__(self) -> None:
        self._written: dict[str, bytes] = {}
        self.root = self.work = self.private = self.prompt = Path()

    @signals_blocked()  # an interrupt waits until it is known what to delete
    def _make(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="autoresearch-")).resolve()
        self.work, self.private = self.root / "work", self.root / "private"
        self.prompt = self.root / "prompt.md"
        self.work.mkdir()
        self.private.mkdir()

    def write(self, files: Mapping[str, str]) -> None:
        """Writes these new files, by their paths within the folder with `/` between parts.

        OSError where something is there already: a link would lead the write out of the folder.
        """
        for name, text in files.items():
            path = self.work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            data = text.encode("utf-8", "backslashreplace")
            with path.open("xb") as file:
                file.write(data)
            self._written[name] = data

    def answer(self) -> Answer:
        text, fault = None, ""
        try:
            text = read_plain_file(self.work / TRAINER, TRAINER_BYTES)
        except UnusableFile as unusable:
            fault = str(unusable)
        return Answer(text, fault, self._words(HYPOTHESIS), self._words(LESSON), self._others())

    def reset_answer(self) -> None:
        """For a second run here: takes away what the first said of its edit, and a trainer that can't be taken."""
        for name in (HYPOTHESIS, LESSON):
            self._remove(self.work / name)
        try:
            read_plain_file(self.work / TRAINER, TRAINER_BYTES)
        except UnusableFile:
            self._remove(self.work / TRAINER)
            with contextlib.suppress(OSError):  # then it is found unusable again
                self.write({TRAINER: self._written[TRAINER].decode("utf-8")})

    def remove(self, name: str) -> bool:
        """Removes an entry of the folder; whether it was there."""
        there = os.path.lexists(self.work / name)
        if there:
            self._remove(self.work / name)
        return there

    def _remove(self, path: Path) -> None:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        with contextlib.suppress(OSError):
            path.unlink()

    @signals_blocked()
    def close(self) -> None:
        if self.root == Path():
            return
        for folder, inner, _ in os.walk(self.root):
            for name in inner:
                path = Path(folder, name)
                if not path.is_symlink():
                    with contextlib.suppress(OSError):
                        path.chmod(0o700)
        shutil.rmtree(self.root, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self._make()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _words(self, name: str) -> str:
        """A short text that the command wrote, without control characters; empty where there is none to be had."""
        most = HYPOTHESIS_CHARACTERS if name == HYPOTHESIS else LESSON_CHARACTERS
        try:
            text = read_plain_file(self.work / name, 64 * 2**10)
        except UnusableFile:
            return ""
        text = "".join(char for char in text if char in "\n\t" or char.isprintable()).strip()
        if name == LESSON:
            text = text.partition("\n")[0]
        return text if len(text) <= most else f"{text[:most]} ..."

    def _others(self) -> str:
        """What was changed, made or deleted beside the answer."""
        made, changed, seen = [], [], set()
        for name in self._names():
            seen.add(name)
            if name in (TRAINER, HYPOTHESIS, LESSON):
                continue
            if name not in self._written:
                made.append(name)
            elif not self._as_written(name):
                changed.append(name)
        whole = len(seen) < LOOKED_AT
        deleted = sorted(set(self._written) - seen - {TRAINER}) if whole else []
        told = [
            f"{word} {_listed(names)}"
            for word, names in (("changed", changed), ("made", made), ("deleted", deleted))
            if names
        ]
        return "; ".join(told) + ("" if whole else f" (of the first {LOOKED_AT} entries)")

    def _names(self) -> Iterator[str]:
        found = 0
        for folder, inner, files in os.walk(self.work):
            for name in sorted([*files, *(one for one in inner if Path(folder, one).is_symlink())]):
                if (found := found + 1) > LOOKED_AT:
                    return
                yield Path(folder, name).relative_to(self.work).as_posix()

    def _as_written(self, name: str) -> bool:
        path, data = self.work / name, self._written[name]
        with contextlib.suppress(OSError):
            found = path.lstat()
            if stat.S_ISREG(found.st_mode) and found.st_size == len(data):
                return path.read_bytes() == data
        return False


def read_plain_file(path: Path, most: int) -> str:
    """The text of a plain file. Raises UnusableFile for anything else: a link, a pipe, too many bytes, not UTF-8."""
    name = path.name
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise UnusableFile(f"{name} is no plain file")
        # Between the look and this it may have become something else.
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(path, flags), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
                raise UnusableFile(f"{name} is no file of its own")
            data = file.read(most + 1)
    except FileNotFoundError:
        raise UnusableFile(f"{name} is gone") from None
    except OSError as error:
        raise UnusableFile(f"{name} can't be read: {error.strerror}") from None
    if len(data) > most:
        raise UnusableFile(f"{name} has more than {most} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnusableFile(f"{name} is not UTF-8: byte {error.start} ({error.reason})") from None


def _listed(names: list[str]) -> str:
    shown = ["".join(char if char.isprintable() else "?" for char in name)[:80] for name in names[:5]]
    counted = "1 file" if len(names) == 1 else f"{len(names)} files"
    return f"{counted} ({', '.join(shown)}{', ...' if len(names) > 5 else ''})"
