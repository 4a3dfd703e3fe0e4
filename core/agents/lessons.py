"""`lessons.md`: a line for each thing that was learned, for later proposals, other campaigns and the user.

Anybody may edit the file at any time, so it is read anew each time and only appended to.
"""

from __future__ import annotations

import os
from pathlib import Path

import filelock

from core.events import Notice, OnEvent
from core.records import UserError
from core.system.text import one_line

NAME = "lessons.md"
SHOWN = 100  # lines
LONGEST = 400  # characters of a line
_TAIL_BYTES = 2**16
_LOCK_SECONDS = 10.0


class Lessons:
    """The lessons in `path`, a file that need not exist yet."""

    def __init__(self, path: Path, tell: OnEvent) -> None:
        self.path = path
        self._tell = tell
        self._last_notice = ""

    def read(self) -> list[str]:
        """The last lines that are not empty, oldest first; none, and one notice, while the file can't be read."""
        return [] if (text := self._end()) is None else _lines(text)[-SHOWN:]

    def append(self, lesson: str) -> bool:
        """Appends a line unless it is among the last ones. Returns whether it is in the file now.

        It is a single write at the end, so that neither a kill nor an editor that saves meanwhile costs earlier lines.
        """
        line = one_line(lesson, LONGEST)
        try:
            with filelock.FileLock(lock_of(self.path), timeout=_LOCK_SECONDS):
                text = self._end()
                if text is None:
                    return False
                if line in (one.removeprefix("- ") for one in _lines(text)[-SHOWN:]):
                    return True
                _add(self.path, f"- {line}\n")
        except (OSError, filelock.Timeout) as error:
            self._notice(f"{self.path}: a lesson was not kept: {error}")
            return False
        self._last_notice = ""
        return True

    def _end(self) -> str | None:
        """The last bytes of the file as text, empty without a file; None if it can't be read."""
        try:
            with open(self.path, "rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _TAIL_BYTES))
                raw = file.read(_TAIL_BYTES)
        except FileNotFoundError:
            return ""
        except OSError as error:
            self._notice(f"{self.path} can't be read ({error.strerror}): no lessons until it can")
            return None
        if size > _TAIL_BYTES:
            raw = raw.partition(b"\n")[2]  # the first line may begin in the middle of a character
        try:
            return raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            self._notice(
                f"{self.path}: expected UTF-8 text, and byte {size - len(raw) + error.start} is not ({error.reason}): "
                "it is neither read nor added to until that is mended"
            )
            return None

    def _notice(self, text: str) -> None:
        if text != self._last_notice:
            self._last_notice = text
            self._tell(Notice(text))


def refuse_unusable(path: Path) -> None:
    """Raises UserError for a path that can't become a file of lessons."""
    if path.is_dir():
        raise UserError(f"--lessons: expected a file, and {path} is a folder; name one in it: {path / NAME}")
    if not path.absolute().parent.is_dir():
        raise UserError(f"--lessons: {path.parent} is no folder; make it with: mkdir {path.parent}")


def lock_of(path: Path) -> Path:
    """The lock's path, beside the file, since campaigns anywhere may share it."""
    return path.with_name(f".{path.name}.lock")


def _lines(text: str) -> list[str]:
    return [line for raw in text.splitlines() if (line := one_line(raw, LONGEST + 2))]


def _add(path: Path, line: str) -> None:
    with open(path, "a+b", buffering=0) as file:  # unbuffered, so one write call
        size = file.seek(0, os.SEEK_END)
        whole = line.encode("utf-8", "replace")
        if size:
            file.seek(size - 1)
            if file.read(1) != b"\n":
                whole = b"\n" + whole
        try:
            if file.write(whole) < len(whole):
                raise OSError("the disk is full")
            os.fsync(file.fileno())
        except OSError:
            file.truncate(size)
            raise
