"""The agents by name: those that come with autoresearch, and other people's by entry point.

An agent's module is imported when the agent is made: each has libraries of its own.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

from core.agents.base import Agent
from core.records import UserError, unknown

GROUP = "autoresearch.agents"
_BUILT_IN = {"replay": "core.agents.replay:ReplayAgent", "search": "core.agents.search.agent:SearchAgent"}
# Agents that can be unavailable for a while. The search stands in for them then; in the hybrid it has turns of its own.
_THINKERS = {"api": "core.agents.api.factory:api", "command": "core.agents.command.factory:command"}
_HYBRID = "hybrid"


def names() -> list[str]:
    """Every agent that `make` knows."""
    return sorted({*_BUILT_IN, *_THINKERS, _HYBRID, *(point.name for point in entry_points(group=GROUP))})


def make(name: str, /, **settings: Any) -> Agent:
    """Makes the agent of that name with the settings that were given (`seed`, ...).

    Raises UserError for a name that isn't known and for a setting that the agent does not take.
    """
    if name in _THINKERS or name == _HYBRID:
        from core.agents.hybrid import Hybrid, stand_in
        from core.agents.search.agent import SearchAgent

        search = SearchAgent(settings.pop("seed", 0), settings.pop("learn_from", None))
        search.lessons = settings.get("lessons")
        if name in _THINKERS:
            return stand_in(thinker(name, **settings), search)
        return Hybrid(thinker("command" if "command" in settings else "api", **settings), search)
    if name in _BUILT_IN:
        return _made(name, _attribute(_BUILT_IN[name]), settings)
    points: list[EntryPoint] = [point for point in entry_points(group=GROUP) if point.name == name]
    if not points:
        raise unknown("agent", name, names())
    try:
        factory = points[0].load()
    except Exception as error:
        raise UserError(f"agent {name}: {points[0].value} can't be loaded: {error}") from error
    return _made(name, factory, settings)


def thinker(name: str, /, **settings: Any) -> Agent:
    """Makes an `api` or `command` agent without the search as its stand-in: its `propose` may raise Unavailable."""
    return _made(name, _attribute(_THINKERS[name]), settings)


def _attribute(place: str) -> Any:
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _made(name: str, factory: Callable[..., Any], settings: dict[str, Any]) -> Agent:
    takes = inspect.signature(factory).parameters
    named = [key for key, one in takes.items() if one.kind in (one.KEYWORD_ONLY, one.POSITIONAL_OR_KEYWORD)]
    open_ended = any(one.kind is one.VAR_KEYWORD for one in takes.values())
    if not open_ended and (others := [key for key in settings if key not in named]):
        raise UserError(
            f"agent {name} takes no {_options(others)}; it takes {_options(named) if named else 'no options'}"
        )
    needed = [key for key in named if takes[key].default is inspect.Parameter.empty]
    if missing := [key for key in needed if key not in settings]:
        raise UserError(f"agent {name} needs {_options(missing)}")
    return cast(Agent, factory(**settings))


def _options(names: list[str]) -> str:
    return ", ".join("--" + name.replace("_", "-") for name in names)
