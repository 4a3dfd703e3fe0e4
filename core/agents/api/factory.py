"""Makes the API agent from the options of a run. Checks, before any folder is made, that the model can be asked."""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import cast, get_args

from core.agents.api.agent import ANSWER_TOKENS, ApiAgent
from core.agents.base import AgentContext
from core.agents.lessons import refuse_unusable
from core.agents.llm import providers
from core.agents.llm.base import Effort, ModelClient
from core.agents.llm.connect import checked, server
from core.agents.llm.providers import ModelSettings
from core.events import Notice, Working
from core.records import PROGRAM, UserError
from core.store import program as programs

# Servers of local models count the answer's limit against a context that is often 32k.
_ANSWER_TOKENS = {"anthropic": ANSWER_TOKENS, "openai": 16_000}
_COMMAND = "--agent command lends the work to a coding agent with a login of its own"


def api(
    *,
    model: str | None = None,
    provider: str = "anthropic",
    endpoint: str | None = None,
    effort: str | None = None,
    thinking_budget: int | None = None,
    max_cost: float | None = None,
    max_tokens: int | None = None,
    price: str | None = None,
    lessons: Path | None = None,
    timeout: float = 300.0,
) -> ApiAgent:
    """For the registry. `max_cost` (USD) and `max_tokens` bound one run, as do those of program.md: the lower holds.

    `timeout` is the seconds without a piece of an answer after which it counts as cut off. Raises UserError for an
    option that is missing or wrong.
    """
    if effort is not None and effort not in get_args(Effort):
        raise UserError(f"--effort: expected one of {', '.join(get_args(Effort))}, not {effort!r}")
    for option, limit in (("--max-cost", max_cost), ("--max-tokens", max_tokens)):
        if limit is not None and not (limit > 0 and math.isfinite(limit)):
            raise UserError(f"{option}: expected a number above 0, not {limit}")
    try:
        timeout = float(timeout)  # from --agent-set it comes as text
    except ValueError:
        raise UserError(f"timeout: expected seconds, not {timeout!r}") from None
    if not (timeout > 0 and math.isfinite(timeout)):
        raise UserError(f"timeout: expected seconds above 0, not {timeout}")
    if lessons is not None:
        refuse_unusable(lessons)
    settings = ModelSettings(
        provider=provider,
        model=model,
        endpoint=endpoint,
        effort=cast("Effort | None", effort),
        thinking_budget=thinking_budget,
        timeout=timeout,
        price=price,
        max_usd=_dollars(max_cost),
        max_tokens=max_tokens,
    )
    if lacking := providers.missing(provider, endpoint):
        raise UserError(f"{lacking}; {_COMMAND}")
    chosen = checked(settings)

    def connect(context: AgentContext) -> ModelClient:
        program = programs.read(context.root / PROGRAM)
        dollars = [limit for limit in (max_cost, program.max_cost) if limit is not None]
        tokens = [limit for limit in (max_tokens, program.max_tokens) if limit is not None]
        return server(
            context.state,
            replace(settings, max_usd=_dollars(min(dollars, default=None)), max_tokens=min(tokens, default=None)),
            on_wait=lambda text: context.tell(Working(agent.name, text)),
            on_notice=lambda text: context.tell(Notice(text)),
            seconds_left=context.seconds_left,
        )

    agent = ApiAgent(connect, model=chosen, lessons=lessons, answer_tokens=_ANSWER_TOKENS[provider])
    return agent


def _dollars(limit: float | None) -> Decimal | None:
    return None if limit is None else Decimal(str(limit))
