"""What tokens cost: the table's figures, exact sums, and prices that a person gives."""

from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.agents.llm import claude, prices
from core.agents.llm.base import Usage
from core.records import UserError

MILLION = 1_000_000
tokens = st.integers(0, 5_000_000)
usages = st.builds(Usage, input=tokens, output=tokens, cache_read=tokens, cache_write=tokens, cache_write_hour=tokens)


def test_a_million_of_each_costs_what_the_price_page_says() -> None:
    price = prices.known("claude-opus-5-5")
    assert price is not None
    assert price.cost(Usage(input=MILLION)) == 4
    assert price.cost(Usage(output=MILLION)) == 20
    assert price.cost(Usage(cache_read=MILLION)) == Decimal("0.20")
    assert price.cost(Usage(cache_write=MILLION)) == 5
    assert price.cost(Usage(cache_write_hour=MILLION)) == 8
    assert price.cost(Usage(input=1, output=1)) == Decimal("0.000024")


@pytest.mark.parametrize("model", [name for name in prices.table()[1] if name != "claude-haiku-5-5"])
def test_every_claude_writes_its_cache_at_the_published_factors(model: str) -> None:
    price = prices.known(model)
    assert price is not None
    assert price.cache_write == price.input * Decimal("1.25")
    assert price.cache_write_hour == price.input * 2
    assert price.output == price.input * 5
    assert price.cache_read / price.input in {Decimal("0.1"), Decimal("0.05"), Decimal("0.025")}


def test_a_long_prompt_costs_more_altogether() -> None:
    price = prices.known("claude-haiku-5-5")
    assert price is not None
    assert price.cost(Usage(input=100_000, output=1000)) == Decimal("0.0105")
    assert price.cost(Usage(input=1, cache_read=100_000, output=1000)) == Decimal("0.0075005")
    assert price.most(100_000) == Decimal("0.02") and price.most(100_001) == Decimal("0.100001")


def test_snapshots_are_their_models_and_strangers_have_no_price() -> None:
    assert prices.known("claude-haiku-4-5-20251001") == prices.known("claude-haiku-4-5")
    assert prices.known("claude-opus-4-5-20251101") == prices.known("claude-opus-4-5")
    assert prices.known(claude.DEFAULT_MODEL) is not None
    assert prices.known("claude-opus-9") is None and prices.known("qwen4") is None
    assert prices.table()[0] >= date(2026, 11, 25)


def test_a_price_of_ones_own() -> None:
    price = prices.parse("2 10 0.2 2.5")
    used = Usage(input=10, output=10, cache_read=10, cache_write=10, cache_write_hour=10)
    assert price.cost(used) == Decimal("0.000172")
    assert prices.parse("2, 10").cost(used) == Decimal("0.00018")
    assert prices.parse("0 0").cost(used) == 0
    assert prices.parse("2 10 0.2 2.5 4").cache_write_hour == 4


@pytest.mark.parametrize("text", ["", "2", "2 ten", "-1 2", "1 nan", "1 2 3 4 5 6", "0.0000001 1", "1e9 1"])
def test_what_is_no_price(text: str) -> None:
    with pytest.raises(UserError, match="expected a price like"):
        prices.parse(text)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.sampled_from(list(prices.table()[1])), usages)
def test_a_cost_is_a_whole_number_of_picodollars_and_below_the_most(model: str, usage: Usage) -> None:
    price = prices.known(model)
    assert price is not None
    cost = price.cost(usage)
    assert (cost * 10**12) % 1 == 0
    prompt = usage.total - usage.output
    assert cost <= price.most(prompt) + price.at(prompt).output * usage.output / MILLION
