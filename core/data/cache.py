"""The one cache folder: where it is, atomic files in it, and the lock under which something is built."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import platformdirs
from filelock import FileLock, Timeout

OnProgress = Callable[[str, int, int], None]  # stage, done, total


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
