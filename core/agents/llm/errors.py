"""Turns a server's errors into what mends them: waiting (Outage), the user (UserError), a shorter prompt (TooLong)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from core.agents.llm.base import Outage
from core.agents.llm.network import is_direct, proxy_variables
from core.records import UserError
from core.system.text import one_line

_OUTAGES = {
    408: "the request timed out",
    409: "the server was busy with a conflicting request",
    425: "the server asks to come back later",
    429: "rate limit",
    500: "the server failed",
    502: "the server can't be reached behind its gateway",
    503: "the server is unavailable",
    504: "the server took too long",
    529: "the server is overloaded",
}
WIDTH = 200  # characters of what a server said, in an error
LONGEST_WISH = 3600.0  # seconds that a server may make us wait: a wrong header must not take the whole night
# Anthropic; OpenAI and vLLM; llama.cpp.
_TOO_LONG = re.compile(
    r"prompt is too long|exceed context limit|maximum context length|context_length_exceeded|exceed_context_size"
    r"|exceeds? the (available )?context",
    re.IGNORECASE,
)
_NO_CREDIT = re.compile(r"credit balance|insufficient_quota|billing|exceeded your current quota", re.IGNORECASE)


class TooLong(Exception):
    """The prompt does not fit the model's context."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """A server, as errors name it."""

    name: str  # "Anthropic's API"
    address: str
    model: str
    key: str  # the environment's variable with the key
    timeout: float  # seconds


@contextmanager
def translated(sdk: Any, server: Server, begun: Callable[[], bool]) -> Iterator[None]:
    """Turns errors of the SDK and of the connection under it into Outage, UserError or TooLong.

    `begun` says whether something of the answer has come.
    """
    import httpx2

    try:
        yield
    except sdk.APITimeoutError:
        raise Outage(_stopped(server) if begun() else f"no answer from {server.address}", 0.0) from None
    except sdk.APIConnectionError as error:
        raise Outage(_unreachable(server, error.__cause__), 0.0) from None
    except sdk.APIStatusError as error:
        if error.status_code < 400:
            raise from_stream(server, str(error.type), _message(error)) from None
        raise from_status(server, error.status_code, _message(error), error.response.headers) from None
    except sdk.APIResponseValidationError:
        raise Outage(f"{server.address} gave no answer of {server.name}", 0.0) from None
    except sdk.APIError as error:
        raise from_stream(server, str(getattr(error, "type", "")), _message(error)) from None
    except httpx2.TimeoutException:
        raise Outage(_stopped(server), 0.0) from None
    except (httpx2.HTTPError, json.JSONDecodeError, UnicodeDecodeError):  # an event that is cut off is no JSON
        raise Outage("the answer was cut off", 0.0) from None


def _unreachable(server: Server, cause: BaseException | None) -> str:
    said = one_line(str(cause or ""), WIDTH)
    reason = re.sub(r"^\[\w+ -?\d+\] ", "", said)
    through = "" if is_direct(server.address) else f", through the proxy of {proxy_variables()}"
    return f"no connection to {server.address}{through}{reason and f': {reason}'}"


def _stopped(server: Server) -> str:
    return f"the answer stopped for {server.timeout:g} s in the middle"


def cut_off(server: Server, response: Any, begun: bool) -> Exception:
    """The error for an answer that ended too early; `begun` says whether a part of it had come."""
    if not begun and "event-stream" not in response.headers.get("content-type", ""):
        return UserError(f"{server.address} answers, but not as {server.name} does: name another with --endpoint")
    return Outage("the answer was cut off", 0.0)


def _message(error: Any) -> str:
    """What the server said, without the SDK's words around it."""
    body = getattr(error, "body", None)
    inner = body.get("error", body) if isinstance(body, Mapping) else None
    said = inner.get("message") if isinstance(inner, Mapping) else inner
    code = inner.get("code") if isinstance(inner, Mapping) else None
    return " ".join(str(one) for one in (said or error.message, code) if one and not isinstance(one, int))


def from_status(server: Server, status: int, message: str, headers: Mapping[str, str]) -> Exception:
    """The error for an answer with this status."""
    said = one_line(message, WIDTH)
    if status == 402 or (status in {400, 403, 429} and _NO_CREDIT.search(message)):
        return UserError(f"{server.name} wants to be paid first: {said}; add credit to the account of {server.key}")
    if status in _OUTAGES or status >= 500:
        return Outage(f"{_OUTAGES.get(status, 'the server failed')} ({status})", seconds_after(headers))
    if status == 413 or (status in {400, 422} and _TOO_LONG.search(message)):
        return TooLong(said)
    if status == 401:
        return UserError(
            f"{server.name} at {server.address} does not accept the key in {server.key}: see that it is whole, "
            "of this service and not revoked"
        )
    if status == 403:
        return UserError(f"{server.name} does not let this key use {server.model}: {said}")
    if status == 404:
        return UserError(
            f"{server.name} at {server.address} knows no model {server.model}, or is not there: {said}; "
            "name another with --model, or another address with --endpoint"
        )
    return UserError(f"{server.name} refused the request ({status}): {said}")


def from_stream(server: Server, kind: str, message: str) -> Exception:
    """The error for an error event in a stream that began well."""
    if _TOO_LONG.search(message):
        return TooLong(one_line(message, WIDTH))
    if kind in {"invalid_request_error", "request_too_large", "authentication_error", "permission_error"}:
        return UserError(f"{server.name} broke off its answer: {one_line(message, WIDTH)}")
    reasons = {"overloaded_error": _OUTAGES[529], "rate_limit_error": _OUTAGES[429], "timeout_error": _OUTAGES[504]}
    return Outage(f"{reasons.get(kind, 'the server failed')}, in the middle of its answer", 0.0)


def seconds_after(headers: Mapping[str, str]) -> float:
    """The seconds that the server asks to wait, an hour at most; 0 if it doesn't. Headers give seconds or a date.

    https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3
    """
    seconds = 0.0
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        with suppress(KeyError, ValueError):
            seconds = float(headers[name]) * scale
            break
    else:
        with suppress(ValueError):
            date = parsedate_to_datetime(headers.get("retry-after", ""))
            seconds = ((date if date.tzinfo else date.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()
    return min(LONGEST_WISH, max(0.0, seconds))
