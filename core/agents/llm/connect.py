"""From a run's settings to who answers: a server behind limits and records, or the records of an earlier campaign."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from core.agents.llm import archive, prices, providers, transcript
from core.agents.llm.archive import Archive
from core.agents.llm.base import Effort, Provider
from core.agents.llm.client import ApiClient
from core.agents.llm.prices import Price
from core.agents.llm.redact import Redactor
from core.agents.llm.replay import ReplayClient
from core.agents.llm.transcript import Transcript


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """What a person may choose about a model. Keys are no setting: they come from the environment."""

    provider: str = "anthropic"
    model: str | None = None  # the provider's default
    endpoint: str | None = None
    effort: Effort | None = None  # the model's default
    thinking_budget: int | None = None  # tokens, for models that do not decide themselves
    timeout: float = 300.0  # seconds without a piece of an answer
    price: str | None = None  # as `prices.parse` takes it; the table's where it is None
    max_usd: Decimal | None = None  # of this run
    max_tokens: int | None = None


def server(
    state: Path,
    settings: ModelSettings,
    *,
    on_wait: Callable[[str], None] = lambda text: None,
    on_notice: Callable[[str], None] = lambda text: None,
    seconds_left: Callable[[], float] = lambda: math.inf,
) -> ApiClient:
    """Who answers for a campaign whose agents keep their files in `state`, with the campaign's lock held.

    Raises UserError if a package, a key, a model's name or its price is missing, or a setting does not fit. `on_wait`
    and `on_notice` are told lines for a person. `seconds_left`: of the run; after its end no answer streams on.
    """
    provider, price = _provider(settings)
    try:
        redact = Redactor(providers.secrets())
        opened = Archive.open(state / archive.FILE, redact=redact, create=True)
    except BaseException:
        provider.close()
        raise
    try:
        return ApiClient(
            provider,
            opened,
            Transcript(state / transcript.FOLDER, redact, on_notice),
            redact,
            price=price,
            max_usd=settings.max_usd,
            max_tokens=settings.max_tokens,
            on_wait=on_wait,
            seconds_left=seconds_left,
        )
    except BaseException:
        opened.close()
        provider.close()
        raise


def checked(settings: ModelSettings) -> str:
    """The name of the model that would be asked. Raises UserError for what `server` would: nothing is asked or made."""
    provider, price = _provider(settings)
    provider.close()
    if settings.max_usd is not None and price is None:
        raise prices.needed(provider.model)
    return provider.model


def _provider(settings: ModelSettings) -> tuple[Provider, Price | None]:
    own = None if settings.price is None else prices.parse(settings.price)
    provider = providers.connect(
        settings.provider,
        model=settings.model,
        endpoint=settings.endpoint,
        effort=settings.effort,
        thinking_budget=settings.thinking_budget,
        timeout=settings.timeout,
    )
    return provider, own or prices.known(provider.model)


def recording(state: Path, on_difference: Callable[[int, str], None] = lambda experiment, text: None) -> ReplayClient:
    """The replies that were recorded in the `state` of another campaign. Raises UserError if there are none."""
    return ReplayClient(Archive.open(state / archive.FILE), on_difference)
