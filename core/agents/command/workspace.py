"""The folder that a coding agent works in: writes files into it, and reads the agent's answer from it.

The command that wrote them is not trusted: no link is followed, nothing is run, and nothing is read beyond its limit.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from core.records import TRAINER, UserError
from core.system import scratch
from core.system.files import decode
from core.system.signals import signals_blocked
from core.system.text import clean, one_line

HYPOTHESIS, LESSON = "hypothesis.txt", "lesson.txt"
TRAINER_BYTES = 2**20  # the reference trainers have a fortieth of it
HYPOTHESIS_CHARACTERS, LESSON_CHARACTERS = 2000, 300
LOOKED_AT = 5000  # entries of the folder that are compared with what was written


class UnusableFile(Exception):
    """A file of the command that can't be used; the text says why."""


@dataclass(frozen=True)
class Answer:
    """The files that the command wrote as its proposal."""

    text: str | None  # of train.py
    fault: str  # why there is no text
    hypothesis: str
    lesson: str
    others: str  # what else it changed, in a line; empty for nothing


class Workspace:
    """A new temporary folder with the command's `work` folder and its `private` one; deleted on leaving."""

    def __init__(self) -> None:
        self._written: dict[str, bytes] = {}
        self.root = self.work = self.private = self.prompt = Path()

    def write(self, files: Mapping[str, str]) -> None:
        """Writes new files into the work folder; names are paths with `/` between parts.

        Raises OSError where something is there already: a link would lead the write out of the folder.
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
        """Prepares a second run: removes the first one's texts, and puts the trainer back if it can't be used."""
        for name in (HYPOTHESIS, LESSON):
            self.remove(name)
        try:
            read_plain_file(self.work / TRAINER, TRAINER_BYTES)
        except UnusableFile:
            self.remove(TRAINER)
            with contextlib.suppress(OSError):  # then the second run's answer is unusable too
                self.write({TRAINER: self._written[TRAINER].decode("utf-8")})

    def remove(self, name: str) -> bool:
        """Removes an entry of the work folder; whether it was there."""
        path = self.work / name
        there = os.path.lexists(path)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        with contextlib.suppress(OSError):
            path.unlink()
        return there

    @signals_blocked()
    def close(self) -> None:
        if self.root == Path():
            return
        scratch.remove(self.root)

    def __enter__(self) -> Self:
        try:
            with signals_blocked():  # else an interrupt here would leave a folder that nobody deletes
                self.root = scratch.make()
                self.work, self.private = self.root / "work", self.root / "private"
                self.prompt = self.root / "prompt.md"
                self.work.mkdir()
                self.private.mkdir()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _words(self, name: str) -> str:
        """A short text that the command wrote, cleaned; empty where there is no such file that can be read."""
        try:
            text = clean(read_plain_file(self.work / name, 64 * 2**10)).strip()
        except UnusableFile:
            return ""
        if name == LESSON:
            return one_line(text.partition("\n")[0], LESSON_CHARACTERS)
        return text if len(text) <= HYPOTHESIS_CHARACTERS else f"{text[:HYPOTHESIS_CHARACTERS]} ..."

    def _others(self) -> str:
        """Which other files were changed, made or deleted."""
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
        kinds = (("changed", changed), ("made", made), ("deleted", deleted))
        listed = "; ".join(f"{kind} {_listed(names)}" for kind, names in kinds if names)
        return listed if whole else f"{listed} (of the first {LOOKED_AT} entries)"

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
        # It may have been replaced since `lstat`.
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
        return decode(data, name)
    except UserError as error:
        raise UnusableFile(str(error)) from None


def _listed(names: list[str]) -> str:
    shown = ", ".join(one_line(name, 80) for name in names[:5]) + (", ..." if len(names) > 5 else "")
    return f"{'1 file' if len(names) == 1 else f'{len(names)} files'} ({shown})"
