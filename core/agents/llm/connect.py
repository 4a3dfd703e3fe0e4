"""Makes the client of a campaign: of a server, with a budget and a record, or of an earlier campaign's record."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from core.agents.llm import archive, prices, providers, transcript
from core.agents.llm.archive import Archive
from core.agents.llm.budget import SpendingBudget
from core.agents.llm.client import ApiClient
from core.agents.llm.providers import ModelSettings
from core.agents.llm.redact import Redactor
from core.agents.llm.replay import ReplayClient
from core.agents.llm.streams import Provider
from core.agents.llm.transcript import Transcript
from core.records import UserError


def server(
    state: Path,
    settings: ModelSettings,
    *,
    on_wait: Callable[[str], None] = lambda text: None,
    on_notice: Callable[[str], None] = lambda text: None,
    seconds_left: Callable[[], float] = lambda: math.inf,
) -> ApiClient:
    """The client for a campaign whose agents have the folder `state`. The campaign's lock must be held.

    Raises UserError if a package, a key, a model's name or its price is missing, or a setting does not fit. `on_wait`
    and `on_notice` get lines for the user. No answer streams on when no `seconds_left` of the run remain.
    """
    provider, budget = _connected(settings)
    try:
        redact = Redactor(providers.secrets())
        opened = Archive.open(state / archive.FILE, redact=redact, create=True)
    except BaseException:
        provider.close()
        raise
    written = Transcript(state / transcript.FOLDER, redact, on_notice)
    return ApiClient(
        provider, opened, written, redact, budget, on_wait=on_wait, on_notice=on_notice, seconds_left=seconds_left
    )


def checked(settings: ModelSettings) -> str:
    """The name of the model. Raises UserError where `server` would; nothing is sent or written."""
    provider, _ = _connected(settings)
    provider.close()
    return provider.model


def _connected(settings: ModelSettings) -> tuple[Provider, SpendingBudget]:
    own = None if settings.price is None else prices.parse(settings.price)
    provider = providers.connect(settings)
    price = own or prices.known(provider.model)
    if settings.max_usd is not None and price is None:
        provider.close()
        raise UserError(
            f"--max-cost needs to know what {provider.model} costs, and no price of it is known: "
            'add --price "IN OUT" in USD for a million tokens, or limit it with --max-tokens'
        )
    return provider, SpendingBudget(price=price, max_usd=settings.max_usd, max_tokens=settings.max_tokens)


def recording(state: Path, on_difference: Callable[[int, str], None] = lambda experiment, text: None) -> ReplayClient:
    """The client that gives the replies recorded in another campaign's `state`. UserError if there are none."""
    return ReplayClient(Archive.open(state / archive.FILE), on_difference)
