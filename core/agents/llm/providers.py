"""The providers by name, and what each needs from the environment.

Keys come from the environment alone: not from a campaign's file, an option, or what an SDK finds on the machine.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from decimal import Decimal
from urllib.parse import urlsplit

from core.agents.llm import anthropic_provider, claude, openai_provider
from core.agents.llm.base import Effort
from core.agents.llm.network import is_loopback
from core.agents.llm.streams import Provider
from core.records import UserError, unknown
from core.system import install

LOCAL = "http://localhost:11434/v1"  # where Ollama listens


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """What a user may choose about a model. Keys come from the environment alone."""

    provider: str = "anthropic"
    model: str | None = None  # None for the provider's default
    endpoint: str | None = None
    effort: Effort | None = None  # None for the model's default
    thinking_budget: int | None = None  # tokens, for models that do not decide it themselves
    timeout: float = 300.0  # seconds without a piece of an answer
    price: str | None = None  # for `prices.parse`; None for the list price
    max_usd: Decimal | None = None  # of this run
    max_tokens: int | None = None


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One protocol."""

    package: str
    extra: str
    keys: tuple[str, ...]  # environment variables; the first that is set counts
    endpoint: str  # the default one
    endpoint_variable: str
    default_model: str  # empty if there is none that every such server has


KINDS = {
    "anthropic": Kind(
        package="anthropic",
        extra="api",
        keys=("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"),
        endpoint=anthropic_provider.ENDPOINT,
        endpoint_variable="ANTHROPIC_BASE_URL",
        default_model=claude.DEFAULT_MODEL,
    ),
    "openai": Kind(
        package="openai",
        extra="openai",
        keys=("OPENAI_API_KEY",),
        endpoint=openai_provider.ENDPOINT,
        endpoint_variable="OPENAI_BASE_URL",
        default_model="",
    ),
}


def missing(provider: str, endpoint: str | None = None) -> str:
    """Why this provider can't be used, and what works without, in one line; empty if nothing is missing."""
    kind = _kind(provider)
    if importlib.util.find_spec(kind.package) is None:
        return (
            f"the {kind.package} package is not installed: {install.command(kind.extra)}; --agent search works without"
        )
    address = _address(kind, endpoint)
    if any(_value(name) for name in kind.keys) or (provider == "openai" and is_loopback(address)):
        return ""
    if provider == "openai":
        return (
            f"no key for {address}: set OPENAI_API_KEY in the environment, to any text where it asks for none; "
            "--agent search works without"
        )
    return (
        f"no key for {address}: set {' or '.join(kind.keys)} in the environment; --agent search works without, "
        f"and so does a model on this machine: --provider openai --endpoint {LOCAL} --model NAME"
    )


def connect(settings: ModelSettings) -> Provider:
    """The provider; nothing is sent yet. UserError if something is missing or the model does not take a setting."""
    if lacking := missing(settings.provider, settings.endpoint):
        raise UserError(lacking)
    kind = _kind(settings.provider)
    address = _address(kind, settings.endpoint)
    model = settings.model or kind.default_model
    if not model:
        raise UserError(f"which model? {address} has no default: name one with --model")
    keys = [_value(name) or None for name in kind.keys]
    effort, budget, timeout = settings.effort, settings.thinking_budget, settings.timeout
    if settings.provider == "anthropic":
        return anthropic_provider.AnthropicProvider(
            model=model,
            key=keys[0],
            token=keys[1],
            endpoint=address,
            effort=effort,
            thinking_budget=budget,
            timeout=timeout,
        )
    if budget is not None:
        raise UserError("the openai protocol knows no thinking budget: leave it out and set the effort")
    return openai_provider.OpenAIProvider(model=model, key=keys[0], endpoint=address, effort=effort, timeout=timeout)


def secrets() -> tuple[str, ...]:
    """The keys of all providers in the environment: none of them may stand in a file, whichever is used."""
    return tuple(sorted({value for kind in KINDS.values() for name in kind.keys if (value := _value(name))}))


def _kind(provider: str) -> Kind:
    if provider not in KINDS:
        raise unknown("provider", provider, KINDS)
    return KINDS[provider]


def _address(kind: Kind, endpoint: str | None) -> str:
    """The endpoint, which may be shown. UserError, which doesn't show it, if it could hold a password or a key."""
    address = (endpoint or _value(kind.endpoint_variable) or kind.endpoint).rstrip("/")
    if any(sign in address for sign in "@?#"):
        given = "--endpoint" if endpoint else kind.endpoint_variable
        raise UserError(
            f"an endpoint is an address such as {kind.endpoint}, with no user name, password or query in it: "
            f"leave them out of {given} and set the key in {' or '.join(kind.keys)}"
        )
    try:
        parts = urlsplit(address)
        whole = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of a port or an IPv6 address
        whole = False
    if not whole:
        raise UserError(f"an endpoint is an address such as {kind.endpoint}, not {address}")
    return address


def _value(name: str) -> str:
    """An environment variable, without the line break that a key from a file often ends with."""
    value = os.environ.get(name, "").strip()
    if value and not (value.isascii() and value.isprintable()):
        raise UserError(f"{name} holds characters that can't be sent: set it again")
    return value
