"""A campaign's folder that is moved, renamed or deleted while a process writes to it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from core.records import UserError


class Whereabouts:
    """Knows whether a campaign's state is still the folder that it was when this was made."""

    def __init__(self, root: Path, state: Path) -> None:
        self._root, self._state = root, state
        self._known: os.stat_result | None = None
        with contextlib.suppress(OSError):
            self._known = state.stat()

    def check(self) -> None:
        """UserError if it is elsewhere or gone. To be called before anything is written by a path."""
        with contextlib.suppress(OSError):
            if self._known is not None and os.path.samestat(self._state.stat(), self._known):
                return
        raise UserError(
            f"the campaign's folder {self._root} was moved or deleted while it was in use; what it has recorded moved "
            "with it. Go on where it is now: autoresearch run FOLDER"
        )

    @contextlib.contextmanager
    def explaining(self) -> Iterator[None]:
        """Any failure within it is told as the move, if there was one."""
        try:
            yield
        except Exception:
            self.check()
            raise
