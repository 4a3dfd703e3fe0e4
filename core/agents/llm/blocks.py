"""Checks what a model wrote: a tool's input may be no JSON, and a text may be no valid UTF-8."""

from __future__ import annotations

import json
from typing import Any

from core.system.text import valid

DEEPEST = 50  # levels of a tool's input


def tool_input(whole: str) -> dict[str, Any] | str:
    """A tool's input; the text itself if it is no JSON object or too deep a one, so that the model can be shown it."""
    if not whole:
        return {}
    try:
        value = json.loads(whole)
    except (ValueError, RecursionError):
        return whole
    return value if isinstance(value, dict) and not _deeper(value, DEEPEST) else whole


def _deeper(value: Any, levels: int) -> bool:
    """Whether it is nested deeper than that, which code that walks through it later may have no stack for."""
    inner = [value]
    for _ in range(levels):
        lists = [one.values() if isinstance(one, dict) else one for one in inner if isinstance(one, (dict, list))]
        inner = [one for values in lists for one in values]
        if not inner:
            return False
    return True


def encodable(value: Any) -> Any:
    """The same value with all texts made valid UTF-8, which JSON doesn't guarantee."""
    if isinstance(value, str):
        return valid(value)
    if isinstance(value, dict):
        return {encodable(key): encodable(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(encodable(one) for one in value)
    return value
