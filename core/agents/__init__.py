"""The registry of agents: those that come with autoresearch, and other people's by entry point.

An agent's module is imported when the agent is made: each has libraries of its own.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

from core.agents.base import Agent
from core.records import UserError

GROUP = "autoresearch.agents"
_BUILT_IN = {
    "search": "core.agents.search:SearchAgent",
    "hybrid": "core.agents.hybrid:hybrid",
    "replay": "core.agents.replay:ReplayAgent",
}
# Agents that may be unavailable for a while. Chosen by themselves, the search stands in for them then.
_THINKERS = {"api": "core.agents.api.factory:api", "command": "core.agents.command:command"}


def names() -> list[str]:
    """Every agent that `make` knows."""
    return sorted({*_BUILT_IN, *_THINKERS, *(point.name for point in entry_points(group=GROUP))})


def make(name: str, **options: Any) -> Agent:
    """The agent of that name, made with the options that were given (`seed`, `model`, ...).

    Raises UserError for a name that isn't known, an option that the agent does not take, and whatever it lacks here.
    """
    if name in _THINKERS:
        from core.agents.hybrid import stand_in

        seed = options.pop("seed", 0)
        return stand_in(thinker(name, **options), seed)
    if name in _BUILT_IN:
        return _made(name, _imported(_BUILT_IN[name]), options)
    points: list[EntryPoint] = [point for point in entry_points(group=GROUP) if point.name == name]
    if not points:
        raise UserError(f"there is no agent {name!r}; there are {', '.join(names())}")
    try:
        factory = points[0].load()
    except Exception as error:
        raise UserError(f"agent {name}: {points[0].value} can't be loaded: {error}") from error
    return _made(name, factory, options)


def thinker(name: str, **options: Any) -> Agent:
    """An agent that may be unavailable, without the search beside it."""
    return _made(name, _imported(_THINKERS[name]), options)


def _imported(where: str) -> Callable[..., Agent]:
    module, _, attribute = where.partition(":")
    return cast(Callable[..., Agent], getattr(importlib.import_module(module), attribute))


def _made(name: str, factory: Callable[..., Agent], options: dict[str, Any]) -> Agent:
    parameters = inspect.signature(factory).parameters.values()
    takes = [parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
    if len(takes) == len(parameters) and (unknown := [option for option in options if option not in takes]):
        known = ", ".join(map(_flag, takes)) or "no options of its own"
        raise UserError(f"agent {name} does not take {', '.join(map(_flag, unknown))}; it takes {known}")
    needed = [one.name for one in parameters if one.default is one.empty and one.kind is not one.VAR_KEYWORD]
    if missing := [parameter for parameter in needed if parameter not in options]:
        raise UserError(f"agent {name} needs {', '.join(map(_flag, missing))}")
    return factory(**options)


def _flag(option: str) -> str:
    return "--" + option.replace("_", "-")
