"""What a model wrote, made safe to hand on: tool inputs that may be no JSON, and text that may be no UTF-8."""

from __future__ import annotations

import json
from typing import Any

from core.system.text import valid

DEEPEST = 50  # levels of a tool's input


def tool_input(whole: str) -> dict[str, Any] | str:
    """A tool's input; the text as it came if it is no JSON object, or a nest of them, so that the model can be told."""
    if not whole:
        return {}
    try:
        value = json.loads(whole)
    except (ValueError, RecursionError):
        return whole
    return value if isinstance(value, dict) and not _deeper(value, DEEPEST) else whole


def _deeper(value: Any, levels: int) -> bool:
    """Whether it is nested deeper than that: what walks through it later has only so much of a stack."""
    inner = [value]
    for _ in range(levels):
        lists = [one.values() if isinstance(one, dict) else one for one in inner if isinstance(one, (dict, list))]
        inner = [one for values in lists for one in values]
        if not inner:
            return False
    return True


def encodable(value: Any) -> Any:
    """The same value with U+FFFD for each half of a surrogate pair, which JSON can hold and UTF-8 can't."""
    if isinstance(value, str):
        return valid(value)
    if isinstance(value, dict):
        return {encodable(key): encodable(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(encodable(one) for one in value)
    return value
