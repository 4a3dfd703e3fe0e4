"""Files and disks: the cache's folder, files that appear whole or not at all, locks, digests, a disk that is full."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import platformdirs
from filelock import FileLock, Timeout

from core.records import UserError

OnProgress = Callable[[str, int, int], None]  # stage, done, total
_LEFT = 0.05  # of a disk; with less it counts as full


def cache_root() -> Path:
    """The folder of everything that can be made again. AUTORESEARCH_CACHE overrides the platform's own place."""
    if chosen := os.environ.get("AUTORESEARCH_CACHE"):
        return Path(chosen).expanduser().absolute()
    return Path(platformdirs.user_cache_dir("autoresearch", appauthor=False))


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A binary file that takes the place of `path` when the block ends well, and vanishes when it doesn't."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write `data` to `path` at once or not at all."""
    with replacing(path) as file:
        file.write(json.dumps(data, ensure_ascii=False, indent=1).encode())


def read_json(path: Path) -> dict[str, Any] | None:
    """What `write_json` wrote; None if the file is missing or damaged."""
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def digest(*parts: object) -> str:
    """SHA-256 over the JSON of `parts`: the identity of what they decide."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def locked(name: str, on_progress: OnProgress) -> Iterator[None]:
    """Hold the lock `name` among all processes of this cache; the system frees it when its holder dies."""
    folder = cache_root() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{name}.lock")
    while True:
        try:
            lock.acquire(timeout=1.0)
            break
        except Timeout:
            on_progress("wait for another prepare", 0, 1)
    try:
        yield
    finally:
        lock.release()


def sweep(folder: Path) -> None:
    """Delete what a killed process left half-written in `folder`. Only under the lock of what is built there."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


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
