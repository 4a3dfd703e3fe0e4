"""One training run. What a trainer imports is `join`; everything else here is the supervisor's side."""

from core.trial.client import join

__all__ = ["join"]
