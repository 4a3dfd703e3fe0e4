"""One writer a campaign: the lock that `run`, `try` and `confirm` hold, and the process that holds it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import filelock

from core.records import UserError


@contextmanager
def only_writer(state: Path) -> Iterator[None]:
    """Holds the campaign's lock, which the system releases however this process ends.

    Raises UserError at once, naming the holder's process, where another one writes to the campaign.
    """
    lock = filelock.FileLock(state / "lock")
    # A file of its own: Windows lets nobody read a file that is locked.
    holder = state / "holder.json"
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise UserError(f"another process writes to this campaign: {_name(holder)}; wait for it, or end it") from None
    except OSError as error:
        raise UserError(
            f"{state} can't be written ({error.strerror}): see its permissions and its disk; reading works as it is"
        ) from None
    try:
        started = datetime.now(UTC).isoformat(timespec="seconds")
        holder.write_text(json.dumps({"pid": os.getpid(), "started": started}), encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _name(holder: Path) -> str:
    try:
        found = json.loads(holder.read_text(encoding="utf-8"))
        return f"process {found['pid']}, since {found['started']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "its process is not known"
