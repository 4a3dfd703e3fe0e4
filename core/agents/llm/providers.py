"""Which kinds of servers there are, what each needs from the environment, and how one is reached.

Keys come from the environment and nowhere else: not from a file of the campaign, an option, or what an SDK finds on
the machine by itself.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from core.agents.llm import anthropic_provider, claude, openai_provider
from core.agents.llm.base import Effort, Provider
from core.records import UserError

LOCAL = "http://localhost:11434/v1"  # where Ollama listens


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One protocol."""

    package: str
    extra: str
    keys: tuple[str, ...]  # variables of the environment; the first that is set is taken
    endpoint: str  # that it talks to unless told otherwise
    endpoint_variable: str
    default_model: str  # empty where there is none that every such server has


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
    """Why this provider can't be asked, and what works without, in one line; empty where nothing is missing."""
    kind = _kind(provider)
    if importlib.util.find_spec(kind.package) is None:
        return (
            f"the {kind.package} package is not installed: uv pip install 'autoresearch[{kind.extra}]'; "
            "--agent search works without"
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


def connect(
    provider: str,
    *,
    model: str | None = None,
    endpoint: str | None = None,
    effort: Effort | None = None,
    thinking_budget: int | None = None,
    timeout: float = 300.0,
) -> Provider:
    """The provider, not yet asked anything. UserError where something is missing or the model does not take a setting.

    `timeout`: seconds without a piece of an answer, after which it counts as cut off.
    """
    if lacking := missing(provider, endpoint):
        raise UserError(lacking)
    kind = _kind(provider)
    chosen = model or kind.default_model
    address = _address(kind, endpoint)
    if not chosen:
        raise UserError(f"which model? {address} has no default: name one with --model")
    keys = [_value(name) for name in kind.keys]
    if provider == "openai":
        if thinking_budget is not None:
            raise UserError("the openai protocol knows no thinking budget: leave it out and set the effort")
        return openai_provider.OpenAIProvider(
            model=chosen, key=keys[0] or None, endpoint=address, effort=effort, timeout=timeout
        )
    return anthropic_provider.AnthropicProvider(
        model=chosen,
        key=keys[0] or None,
        token=keys[1] or None,
        endpoint=address,
        effort=effort,
        thinking_budget=thinking_budget,
        timeout=timeout,
    )


def secrets() -> tuple[str, ...]:
    """Every key of any provider in the environment: what must stand in no file, whichever is used."""
    return tuple(sorted({value for kind in KINDS.values() for name in kind.keys if (value := _value(name))}))


def is_loopback(address: str) -> bool:
    """Whether it is on this machine."""
    host = urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _kind(provider: str) -> Kind:
    if provider not in KINDS:
        raise UserError(f"there is no provider {provider}; there are: {', '.join(KINDS)}")
    return KINDS[provider]


def _address(kind: Kind, endpoint: str | None) -> str:
    """Where it is asked, fit to be told. What could be a password or a key in it is refused, and shown by no error."""
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
    """Of the environment, without the line break that a key from a file often ends with."""
    value = os.environ.get(name, "").strip()
    if value and not (value.isascii() and value.isprintable()):
        raise UserError(f"{name} holds characters that can't be sent: set it again")
    return value
