"""One writer a campaign: the lock that `run`, `try` and `confirm` hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from core.records import UserError

# A look at the lock (`is_held`) takes it for an instant, so a writer tries for a little while.
_WAIT_SECONDS = 0.5


class Busy(UserError):
    """Another process writes to the campaign: the same command can work later."""

    status = 75  # EX_TEMPFAIL of sysexits.h


@contextmanager
def only_writer(state: Path, holder: Callable[[], str]) -> Iterator[None]:
    """Holds the campaign's lock, which the system releases however this process ends.

    Raises Busy, with what `holder` says about the process that holds it, where another one writes to the campaign.
    """
    lock = filelock.FileLock(state / "lock")
    try:
        lock.acquire(timeout=_WAIT_SECONDS)
    except filelock.Timeout:
        raise Busy(f"another process writes to this campaign: {holder()}") from None
    except OSError as error:
        raise UserError(
            f"{state} can't be written ({error.strerror}): see its permissions and its disk; reading works as it is"
        ) from None
    try:
        yield
    finally:
        lock.release()


def is_held(state: Path) -> bool:
    """Whether a process writes to the campaign now. False where the folder can't be written: nobody does."""
    lock = filelock.FileLock(state / "lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return True
    except OSError:
        return False
    lock.release()
    return False
