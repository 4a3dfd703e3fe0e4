"""The settings for thinking and effort that each Claude takes, found from its name without a request.

From platform.claude.com, "Troubleshooting thinking" and "Effort", read in November 2026.
"""

from __future__ import annotations

import re
from typing import Any

from core.agents.llm.base import Effort
from core.records import UserError

DEFAULT_MODEL = "claude-opus-5-5"  # "start with Claude Opus 5.5 for most workloads", the models page says
MINIMUM_BUDGET = 1024
_NAME = re.compile(r"claude-(?P<family>[a-z]+)-(?P<major>\d+)(?:-(?P<minor>\d{1,2}))?(?:-\d{8})?")


def settings(model: str, effort: Effort | None, thinking_budget: int | None) -> dict[str, Any]:
    """The request's `thinking` and `output_config`. UserError if the model does not take them.

    A model that isn't called Claude, and so is another provider's, gets only the settings that were given.
    """
    if thinking_budget is not None and thinking_budget < MINIMUM_BUDGET:
        raise UserError(f"a thinking budget is {MINIMUM_BUDGET} tokens or more, not {thinking_budget}")
    known = _NAME.fullmatch(model)
    version = (int(known["major"]), int(known["minor"] or 0)) if known else (0, 0)
    if thinking_budget is not None and version >= (4, 7):
        raise UserError(f"{model} decides itself how long it thinks: leave the thinking budget out and set the effort")
    if effort is not None and known and effort not in (levels := _efforts(known["family"], version)):
        mend = f"it takes {', '.join(levels)}" if levels else "set a thinking budget instead"
        raise UserError(f"{model} does not take effort {effort}: {mend}")
    chosen: dict[str, Any] = {}
    if thinking_budget is not None:
        chosen["thinking"] = {"type": "enabled", "budget_tokens": thinking_budget}
        if known:
            chosen["thinking"]["display"] = "summarized"
    elif version >= (4, 6):
        # Without this the newer ones send empty thinking, which nobody could follow.
        chosen["thinking"] = {"type": "adaptive", "display": "summarized"}
    if effort is not None:
        chosen["output_config"] = {"effort": effort}
    return chosen


def _efforts(family: str, version: tuple[int, int]) -> tuple[Effort, ...]:
    if version >= (4, 7):
        return ("low", "medium", "high", "xhigh", "max")
    if version >= (4, 6):
        return ("low", "medium", "high", "max")
    return ("low", "medium", "high") if (family, version) == ("opus", (4, 5)) else ()
