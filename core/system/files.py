"""Files and disks: the cache's folder, files that appear whole or not at all, their hashes, a disk that is full."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from core.records import UserError

_FULL = 0.05  # of a disk: with less of it free it counts as full


def cache_root() -> Path:
    """The folder of everything that can be made again. AUTORESEARCH_CACHE overrides the platform's own place."""
    if chosen := os.environ.get("AUTORESEARCH_CACHE"):
        return Path(chosen).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("autoresearch", appauthor=False))


# Files that appear whole or not at all


@contextlib.contextmanager
def replacing(path: Path, *, through: Path | None = None) -> Iterator[BinaryIO]:
    """A new binary file that replaces `path` when the block ends, and is deleted if the block raises.

    With `through`, a folder of the same file system with a single writer, the new file lies there and is durable before
    it replaces `path`; it always has the same name, so that a killed process leaves nothing that piles up.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    name = f".{path.name}.{secrets.token_hex(8)}.tmp" if through is None else f"{path.name}.partial"
    temporary = (through or path.parent) / name
    try:
        with temporary.open("wb") as file:
            yield file
            if through is not None:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def delete_leftovers(folder: Path) -> None:
    """Delete what killed processes left of `replacing` in `folder`. Only while no other process writes there."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


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


def read_text(path: Path) -> str:
    """A file's text, UTF-8. UserError if it can't be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read: {error}") from error


# Hashes


def digest(*parts: object) -> str:
    """SHA-256 over the JSON of `parts`: the identity of what they decide."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# A disk that is full, a folder that is not empty


def is_full(error: OSError) -> bool:
    """Whether the system refused to write for want of space or quota."""
    return error.errno in {errno.ENOSPC, errno.EDQUOT}


def is_filled(folder: Path) -> bool:
    """Whether the folder's disk has next to no space left.

    Call it when all that a failed trial wrote is deleted: if there is space again, the trial had filled the disk.
    """
    usage = shutil.disk_usage(folder)
    return usage.free < _FULL * usage.total


def no_space(where: object) -> UserError:
    """The error that asks for space."""
    return UserError(f"no space left for {where}: free some, then run the same command again")


@contextlib.contextmanager
def disk_full_as_user_error(folder: Path) -> Iterator[None]:
    """Turn the system's error of a full disk into a UserError. `folder` is named if the error names no file."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        raise no_space(error.filename or folder) from error


def refuse_occupied(folder: Path, what: str) -> None:
    """UserError unless `folder` is missing or empty. `what` is to be written there: "a model"."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(
            f"{what} needs a new or empty folder; {folder} is not empty: what has something in it stays as it is"
        )
