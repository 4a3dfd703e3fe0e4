"""What a run may still spend on a model, and so how long the next answer may be."""

from __future__ import annotations

import json
from decimal import Decimal

from core.agents.llm.base import LimitReached, Message, Reply, Request, Usage
from core.agents.llm.prices import MILLION, Price

SHORTEST = 1000  # tokens of an answer; if fewer are left, no request is worth sending
# Code and prose have three to four; the bound must hold for tables of digits too.
BYTES_PER_TOKEN = 2


class SpendingBudget:
    """Counts what is used from now on. `max_usd` takes effect only with a price."""

    def __init__(self, *, price: Price | None, max_usd: Decimal | None, max_tokens: int | None) -> None:
        self._price = price
        self._max_usd = max_usd
        self._max_tokens = max_tokens
        self.usd = Decimal(0)
        self.tokens = 0
        self._last: tuple[Request, Usage] | None = None  # the last request that was answered, and its usage

    def spend(self, usage: Usage) -> Decimal | None:
        """Count what a request used. Returns its cost in USD; None if no price is known."""
        self.tokens += usage.total
        if self._price is None:
            return None
        usd = self._price.cost(usage)
        self.usd += usd
        return usd

    def answered(self, request: Request, reply: Reply) -> None:
        """Remember the reported usage, for `estimate` of a request that continues this one."""
        self._last = (request, reply.usage) if reply.usage.total else None

    def fit(self, request: Request) -> int:
        """The tokens that the answer may have, at most `request.max_tokens`. Raises LimitReached below SHORTEST."""
        wanted = request.max_tokens
        least = min(wanted, SHORTEST)
        prompt = self.estimate(request)
        if self._max_tokens is not None:
            wanted = min(wanted, self._max_tokens - self.tokens - prompt)
            if wanted < least:
                raise LimitReached(
                    f"--max-tokens {self._max_tokens:,}: {self.tokens:,} are used, and the next request "
                    f"needs up to {prompt + least:,}"
                )
        if self._max_usd is not None and self._price is not None:
            left = self._max_usd - self.usd - self._price.most(prompt)
            output = self._price.at(prompt).output
            if left < 0:
                wanted = 0
            elif output:
                wanted = min(wanted, int(left * MILLION / output))
            if wanted < least:
                next_usd = self._price.most(prompt) + output * least / MILLION
                raise LimitReached(
                    f"--max-cost {self._max_usd.normalize():f}: ${self.usd:.4f} is spent, and the next request "
                    f"can cost ${next_usd:.4f}"
                )
        return wanted

    def estimate(self, request: Request) -> int:
        """An upper bound of the prompt's tokens. What it shares with the last request counts as reported."""
        if self._last is not None:
            before, usage = self._last
            shared = len(before.messages)
            same = (before.system, before.tools) == (request.system, request.tools)
            if same and request.messages[:shared] == before.messages:
                rest = request.messages[shared:]
                # The rest begins with the last answer, whose tokens are known.
                if rest and rest[0]["role"] == "assistant":
                    return usage.total + _bound(rest[1:])
                return usage.total - usage.output + _bound(rest)
        tools = [[tool.name, tool.description, tool.schema] for tool in request.tools]
        return _bound(request.messages) + (len(request.system.encode()) + len(json.dumps(tools))) // BYTES_PER_TOKEN


def _bound(messages: tuple[Message, ...]) -> int:
    written = json.dumps(list(messages), ensure_ascii=False)
    return len(written.encode(errors="replace")) // BYTES_PER_TOKEN
