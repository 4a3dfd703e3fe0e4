"""Folders and disks that can't take what is to be written: told as the user's to mend."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from core.records import UserError

_LEFT = 0.05  # of a disk; with less it counts as full


@contextlib.contextmanager
def full_disk_told(folder: Path) -> Iterator[None]:
    """Turns the system's error of a full disk into a UserError. `folder` is named where the error names no file."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        raise no_space(error.filename or folder) from error


def is_full(error: OSError) -> bool:
    """Whether the system refused to write for want of space or quota."""
    return error.errno in {errno.ENOSPC, errno.EDQUOT}


def no_space(where: object) -> UserError:
    """The error that asks for space."""
    return UserError(f"no space left for {where}: free some, then run the same command again")


def is_filled(folder: Path) -> bool:
    """Whether the folder's disk has next to nothing left. Asked when all that a failed trial wrote is deleted.

    Where there is room again, the trial itself had filled the disk.
    """
    usage = shutil.disk_usage(folder)
    return usage.free < _LEFT * usage.total


def refuse_occupied(folder: Path, what: str) -> None:
    """UserError unless `folder` is missing or empty. `what` is to be written there: "a model"."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(
            f"{what} needs a new or empty folder; {folder} is not empty: what has something in it stays as it is"
        )
