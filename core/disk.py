"""Folders and disks that can't take what is to be written: told as the user's to mend."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from core.records import UserError


@contextlib.contextmanager
def full_disk_told(folder: Path) -> Iterator[None]:
    """Turns the system's error of a full disk into a UserError. `folder` is named where the error names no file."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise UserError(
            f"no space left for {error.filename or folder}: free some, then run the same command again"
        ) from error


def refuse_occupied(folder: Path, what: str) -> None:
    """UserError unless `folder` is missing or empty. `what` is to be written there: "a model"."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(
            f"{what} needs a new or empty folder; {folder} is not empty: what has something in it stays as it is"
        )
