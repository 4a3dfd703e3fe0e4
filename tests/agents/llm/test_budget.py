"""What may still be spent: the next request is only sent if the most it can cost fits."""

from decimal import Decimal
from typing import Any

import pytest

from core.agents.llm import prices
from core.agents.llm.base import LimitReached, Reply, Request, Usage
from core.agents.llm.budget import SpendingBudget

OPUS = prices.known("claude-opus-5-5")
HAIKU = prices.known("claude-haiku-5-5")


def message(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def request(*texts: str, max_tokens: int = 8000) -> Request:
    roles = ("user", "assistant")
    messages = tuple(message(roles[place % 2], text) for place, text in enumerate(texts))
    return Request(system="", tools=(), messages=messages, max_tokens=max_tokens)


def limits(usd: str | None = None, tokens: int | None = None, price: Any = OPUS) -> SpendingBudget:
    return SpendingBudget(price=price, max_usd=None if usd is None else Decimal(usd), max_tokens=tokens)


def test_without_limits_an_answer_is_as_long_as_was_asked() -> None:
    assert limits().fit(request("go")) == 8000
    assert limits(price=None).fit(request("go")) == 8000


def test_an_answer_is_cut_to_what_is_left_of_the_money() -> None:
    one = limits(usd="0.1")
    prompt = one.estimate(request("go"))
    left = Decimal("0.1") - prompt * Decimal("0.000008")  # all of it written to the cache for an hour
    assert one.fit(request("go")) == int(left / Decimal("0.00002"))
    one.spend(Usage(input=5000, output=1000))  # $0.04
    assert one.usd == Decimal("0.04")
    assert one.fit(request("go")) == int((left - Decimal("0.04")) / Decimal("0.00002"))
    one.spend(Usage(output=2000))
    with pytest.raises(
        LimitReached, match=r"--max-cost 0\.1: \$0\.0800 is spent, and the next request can cost \$0\.02"
    ):
        one.fit(request("go"))
    assert one.fit(request("go", max_tokens=500)) == 500  # a short answer still fits


def test_an_answer_is_cut_to_what_is_left_of_the_tokens() -> None:
    one = limits(tokens=5000, price=None)
    assert one.fit(request("go")) == 5000 - one.estimate(request("go"))
    one.spend(Usage(input=1000, cache_read=2000, output=1000))
    with pytest.raises(LimitReached, match=r"--max-tokens 5,000: 4,000 are used"):
        one.fit(request("go"))


def test_what_the_last_request_told_is_taken_for_its_part() -> None:
    one = limits()
    first = request("x" * 20_000)
    assert 10_000 < one.estimate(first) < 10_100
    usage = Usage(input=4000, output=500)
    one.answered(first, Reply(content=(), stop_reason="tool_use", usage=usage, model="m"))
    second = request("x" * 20_000, "the answer " * 100, "a result")
    assert 4500 < one.estimate(second) < 4550
    assert one.estimate(request("y" * 20_000)) > 10_000  # another conversation


def test_a_long_prompt_is_counted_at_its_price() -> None:
    one = limits(usd="0.2", price=HAIKU)
    assert one.fit(request("x" * 180_000, max_tokens=64_000)) == 64_000  # $0.018 and $0.032
    with pytest.raises(LimitReached):
        limits(usd="0.1", price=HAIKU).fit(request("x" * 220_000, max_tokens=64_000))  # $0.11 for the prompt


def test_what_costs_nothing_is_not_limited_by_money() -> None:
    assert limits(usd="0", price=prices.parse("0 0")).fit(request("go")) == 8000
