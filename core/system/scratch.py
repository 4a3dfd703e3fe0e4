"""Folders for temporary files. Their names say which process made them, so that those of a killed one can be found."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from core.records import UserError
from core.system.files import disk_full_as_user_error, is_full, no_space

# The owner's process id and start, and the machine or container in which these numbers hold (`_place`).
_NAME = re.compile(r"\.?autoresearch-(\d+)-([0-9a-f]+)-([0-9a-f]{6})-\w+")


def make(within: Path | None = None) -> Path:
    """Makes a folder of this process and returns its resolved path: a hidden one in `within`, else a temporary one.

    The caller deletes it with `remove`. UserError if it can't be made.
    """
    parent = _temporary() if within is None else within
    prefix = f"{'' if within is None else '.'}autoresearch-{os.getpid()}-{_start_of(os.getpid()) or 0:x}-{_place()}-"
    try:
        return Path(tempfile.mkdtemp(prefix=prefix, dir=parent)).resolve()
    except OSError as error:
        if is_full(error):
            raise no_space(parent) from error
        what = f"{parent} is gone: make it again" if not parent.is_dir() else f"{parent}: {error.strerror}"
        raise UserError(f"no temporary files can be made: {what}, or set TMPDIR to another folder") from error


@contextlib.contextmanager
def folder(within: Path | None = None) -> Iterator[Path]:
    """Makes a folder for the block, as `make` does, and deletes it at the end. UserError if its disk is full."""
    path = make(within)
    try:
        with disk_full_as_user_error(path.parent):
            yield path
    finally:
        remove(path)


def remove(path: Path) -> None:
    """Deletes a folder with all in it, also folders whose owner lacks rights to them. What can't be deleted stays."""
    for parent, inner, _ in os.walk(path):
        for name in inner:
            child = Path(parent, name)
            if not os.access(child, os.R_OK | os.W_OK | os.X_OK) and not child.is_symlink():
                with contextlib.suppress(OSError):
                    child.chmod(0o700)
    shutil.rmtree(path, ignore_errors=True)


def abandoned(within: Path | None = None) -> list[Path]:
    """This user's folders in `within`, or among temporary files, whose process has ended.

    Those that another machine or container made are left out: their process ids mean nothing here.
    """
    found = []
    with contextlib.suppress(OSError), os.scandir(_temporary() if within is None else within) as entries:
        for entry in entries:
            name = _NAME.fullmatch(entry.name)
            if name is None or name[3] != _place():
                continue
            with contextlib.suppress(OSError):  # its process may be deleting it
                mine = sys.platform == "win32" or entry.stat(follow_symlinks=False).st_uid == os.geteuid()
                if mine and entry.is_dir(follow_symlinks=False) and _start_of(int(name[1])) != int(name[2], 16):
                    found.append(Path(entry.path).resolve())
    return sorted(found)


def _temporary() -> Path:
    try:
        return Path(tempfile.gettempdir())
    except OSError as error:
        raise UserError(f"no temporary files can be made: {error.strerror}; set TMPDIR to a folder for them") from error


def _start_of(pid: int) -> int | None:
    """When the process started, in a unit that no change of the clock alters; None if no process has that id.

    It distinguishes the process from a later one with the same id.
    """
    if sys.platform == "linux":
        try:
            text = Path(f"/proc/{pid}/stat").read_bytes()
        except OSError:
            return None
        fields = text[text.rindex(b")") + 1 :].split()  # the name before may hold anything
        return None if fields[0] in (b"Z", b"X") else int(fields[19])  # clock ticks after boot
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else int(1000 * process.create_time())
    except psutil.AccessDenied:
        return 0  # it is there, and another user's
    except psutil.Error:
        return None


@functools.cache
def _place() -> str:
    """A hash of where process ids are unique: this machine, and on Linux this container. Several may share a folder."""
    known = [platform.node()]
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            known.append(str(Path("/proc/self/ns/pid").readlink()))
        with contextlib.suppress(OSError):
            known.append(Path("/etc/machine-id").read_text(encoding="ascii", errors="replace"))
    return hashlib.sha256("\n".join(known).encode()).hexdigest()[:6]
