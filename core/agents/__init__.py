"""The registry of agents: those that come with autoresearch, and other people's by entry point.

An agent's module is imported when the agent is made: each has libraries of its own.
"""

from __future__ import annotations

import importlib
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

from core.agents.base import Agent
from core.records import UserError

GROUP = "autoresearch.agents"
_BUILT_IN = {"search": "core.agents.search:SearchAgent"}


def names() -> list[str]:
    """Every agent that `make` knows."""
    return sorted({*_BUILT_IN, *(point.name for point in entry_points(group=GROUP))})


def make(name: str, **settings: Any) -> Agent:
    """The agent of that name, made with its settings (`seed`, ...). Raises UserError for a name that isn't known."""
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        return cast(Agent, getattr(importlib.import_module(module), attribute)(**settings))
    points: list[EntryPoint] = [point for point in entry_points(group=GROUP) if point.name == name]
    if not points:
        raise UserError(f"there is no agent {name!r}; there are {', '.join(names())}")
    try:
        factory = points[0].load()
    except Exception as error:
        raise UserError(f"agent {name}: {points[0].value} can't be loaded: {error}") from error
    return cast(Agent, factory(**settings))
