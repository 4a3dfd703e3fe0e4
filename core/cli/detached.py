"""`try --detach`: the same command in a session of its own, which outlives the shell that started it.

The two speak through files of the campaign: the activity, and a file with what the command prints.
"""

from __future__ import annotations

import contextlib
import secrets
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import core
from core.cli.render import terminal
from core.store import activity
from core.store.activity import INTERRUPTED, KILLED, Activity
from core.store.layout import CampaignFolder
from core.system.files import read_json

KEPT = 20  # files with what earlier ones printed
LOOK_SECONDS = 0.05

# This package's folder comes first and the working folder not at all: it may have a package `core` of its own.
_HERE = str(Path(core.__file__).parents[1])
_MAIN = f"import sys; sys.path[:] = [{_HERE!r}, *filter(None, sys.path)]; from core.cli.app import main; main()"


@dataclass(frozen=True)
class Ended:
    """It ended before its experiment was accepted."""

    status: int
    printed: str


def start(folder: CampaignFolder, arguments: list[str]) -> Activity | Ended:
    """Starts `autoresearch ARGUMENTS --job JOB` apart from this process, and waits until its experiment is accepted."""
    job = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
    output = folder.job(job)
    output.parent.mkdir(exist_ok=True)
    for old in sorted(output.parent.glob("*.txt"))[: -(KEPT - 1)]:
        with contextlib.suppress(OSError):
            old.unlink()
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", _MAIN, *arguments, "--job", job],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            **_apart(),
        )
    while True:
        status = process.poll()
        found = read_json(folder.activity) or {}
        if found.get("job") == job and found.get("target") is not None:
            process.returncode = process.returncode or 0  # it goes on without this process, which is no warning
            accepted = activity.read(folder)
            assert accepted is not None
            return accepted
        if status is not None:
            printed = output.read_text(encoding="utf-8", errors="replace")
            output.unlink(missing_ok=True)
            return Ended(status, printed)
        time.sleep(LOOK_SECONDS)


def tell_failure(folder: CampaignFolder) -> None:
    """A notice, once, about a detached `try` that failed since the last command."""
    found = activity.read(folder)
    if found is not None and found.failed and not found.told:
        terminal.notice(f"note: {failure(folder, found)}")
        activity.mark_told(folder, found)


def failure(folder: CampaignFolder, found: Activity) -> str:
    """How the last call ended without the verdict that it was to bring, and where its output lies."""
    where = f" Its output: {folder.job(found.job)}" if found.job else ""
    if found.reason in (INTERRUPTED, KILLED):
        where += f"{';' if where else ''} `autoresearch {found.command}` with the same train.py continues from there"
    return f"experiment {found.target} got no verdict, as `autoresearch {found.command}` failed: {found.reason}.{where}"


def _apart() -> dict[str, Any]:
    """What keeps a process when its parent, its terminal and its process group end."""
    if sys.platform != "win32":
        return {"start_new_session": True}
    return {"creationflags": subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP}
