"""One training run. What a trainer imports is `join`; everything else here is the supervisor's side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from core.trial.child.client import join

__all__ = ["join"]


def __getattr__(name: str) -> Any:
    """Loads NumPy only for who asks for `join`: a trainer. Processes beside it start without."""
    if name == "join":
        from core.trial.child.client import join

        return join
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
