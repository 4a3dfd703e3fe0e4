"""What backends compiled: a store that only the supervisor writes, and a copy of it for each trainer's process.

A trial could pass information to the next one through a shared cache. So its entries are copied before its first real
batch, when it knows nothing yet, and enter the store only after its audit has passed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from core.system.files import cache_root, is_full, replacing

STORE_BYTES = 256 * 2**20  # what is copied for every trial: more would cost more than it saves
MOST_FILES = 20_000
_CHUNK = 1 << 20


def store(backend: str) -> Path:
    """The store of the backend."""
    return cache_root() / "compiled" / backend


def fetched(backend: str) -> Path:
    """The folder of downloads of the backend, which trials read in place."""
    return cache_root() / "fetched" / backend


def copy(source: Path, target: Path) -> None:
    """Copies what is in the store; files that are evicted meanwhile are left out. `target` must not exist."""
    target.mkdir(parents=True)
    for path in _files(source):
        to = target / path
        to.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(source / path, to)


class PendingEntries:
    """Cache entries of one training process, held in the folder `aside` until the trial has passed its audit.

    To be closed: entries that were not merged are deleted then.
    """

    def __init__(self, store: Path, aside: Path) -> None:
        self._store = store
        self._aside = aside

    def take(self, cache: Path) -> None:
        """Copies the entries of a process's cache that the store lacks, whatever the process does meanwhile."""
        room, files = STORE_BYTES, MOST_FILES
        for path, content in _new_files(cache, self._store):
            to = self._aside / path
            to.parent.mkdir(parents=True, exist_ok=True)
            with to.open("wb") as file:
                while part := os.read(content, min(_CHUNK, room + 1)):
                    room -= file.write(part)
                    if room < 0:
                        break
            files -= 1
            if room < 0 or files < 0:  # too much for a compiler's cache: all of it is dropped
                self.close()
                return

    def merge(self) -> None:
        """Moves the entries into the store, file by file, and evicts the oldest ones if it has grown too large."""
        try:
            for path in _files(self._aside):
                if not (self._store / path).exists():
                    with (self._aside / path).open("rb") as source, replacing(self._store / path) as target:
                        shutil.copyfileobj(source, target)
        except OSError as error:
            if is_full(error):
                raise
            return  # a cache that several people share may only be read
        evict(self._store, STORE_BYTES)

    def close(self) -> None:
        """Deletes the entries."""
        shutil.rmtree(self._aside, ignore_errors=True)


def evict(store: Path, most_bytes: int) -> None:
    """Deletes the entries that were merged first until the store has at most so many bytes.

    A folder of the second level is one entry: compilers keep an entry's files together.
    """
    entries: dict[Path, tuple[float, int]] = {}  # time of the newest file, bytes
    for path in _files(store):
        entry = Path(*path.parts[:2])
        with contextlib.suppress(OSError):
            status = (store / path).stat()
            newest, size = entries.get(entry, (0.0, 0))
            entries[entry] = (max(newest, status.st_mtime), size + status.st_size)
    total = sum(size for _, size in entries.values())
    for entry, (_, size) in sorted(entries.items(), key=lambda item: item[1][0]):
        if total <= most_bytes:
            return
        total -= size
        if (store / entry).is_dir():
            shutil.rmtree(store / entry, ignore_errors=True)
        else:
            (store / entry).unlink(missing_ok=True)


def _files(folder: Path) -> Iterator[Path]:
    """Regular files below, relative; not what is being written under a hidden name of `replacing`."""
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if not (name.startswith(".") and name.endswith(".tmp")) and path.is_file() and not path.is_symlink():
                yield path.relative_to(folder)


def _new_files(cache: Path, store: Path) -> Iterator[tuple[Path, int]]:
    """Regular files below `cache` that `store` lacks: relative path and an open descriptor, closed when asked for more.

    No link is followed, not even one that is put in a folder's place during the walk.
    """
    if not hasattr(os, "fwalk"):
        for path in _files(cache):
            if not (store / path).exists():
                with (cache / path).open("rb", buffering=0) as file:
                    yield path, file.fileno()
        return
    for parent, _, names, folder in os.fwalk(cache):
        for name in names:
            path = Path(parent).relative_to(cache) / name
            if (store / path).exists():
                continue
            try:
                content = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
            except OSError:
                continue
            try:
                if stat.S_ISREG(os.fstat(content).st_mode):
                    yield path, content
            finally:
                os.close(content)
