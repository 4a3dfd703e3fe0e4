"""Files that this process may not read or write, although tests may run as root."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NOBODY = 65534


@contextmanager
def as_nobody() -> Iterator[Path]:
    """A folder of its own, and within the block no right beyond it: root could read and write everything."""
    if sys.platform == "win32":
        pytest.skip("Windows has no such rights")
    folder = Path(tempfile.mkdtemp(prefix="as-nobody-")).resolve()
    folder.chmod(0o755)
    user = os.geteuid()
    try:
        if user == 0:
            os.chown(folder, NOBODY, NOBODY)
            os.seteuid(NOBODY)
        yield folder
    finally:
        os.seteuid(user)
        subprocess.run(["chmod", "-R", "u+rwX", str(folder)], check=True)
        shutil.rmtree(folder)


@contextmanager
def small_disk(path: Path, size: str = "2m") -> Iterator[Path]:
    """A file system of that size at `path`."""
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    if sys.platform != "linux" or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs Linux and root")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def make_read_only(disk: Path) -> None:
    """The file system of `small_disk` takes no more writes."""
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
