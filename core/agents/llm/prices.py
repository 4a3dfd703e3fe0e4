"""What tokens cost, exactly: by the dated table beside this file, or by a price that the user gives."""

from __future__ import annotations

import functools
import re
import tomllib
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from core.agents.llm.base import Usage
from core.records import UserError

MILLION = 1_000_000
DECIMALS = 6  # of a price, so that a cost is a whole number of picodollars
_SNAPSHOT = re.compile(r"-\d{8}$")


@dataclass(frozen=True, kw_only=True)
class Price:
    """USD for a million tokens of each kind. `long` applies to all tokens of requests with a prompt over `above`."""

    input: Decimal
    output: Decimal
    cache_read: Decimal
    cache_write: Decimal
    cache_write_hour: Decimal
    above: int | None = None
    long: Price | None = None

    def cost(self, usage: Usage) -> Decimal:
        """USD of one request, not rounded."""
        price = self.at(usage.total - usage.output)
        return (
            price.input * usage.input
            + price.output * usage.output
            + price.cache_read * usage.cache_read
            + price.cache_write * usage.cache_write
            + price.cache_write_hour * usage.cache_write_hour
        ) / MILLION

    def at(self, prompt: int) -> Price:
        """The price of a request whose prompt has this many tokens, cached ones included."""
        return self.long if self.long is not None and self.above is not None and prompt > self.above else self

    def most(self, prompt: int) -> Decimal:
        """The most, in USD, that a prompt of this many tokens can cost: all of it billed at the highest price."""
        price = self.at(prompt)
        return max(price.input, price.cache_read, price.cache_write, price.cache_write_hour) * prompt / MILLION


@functools.cache
def table() -> tuple[date, dict[str, Price]]:
    """The day on which the list prices were read off their source, and the prices by model."""
    text = Path(__file__).with_name("prices.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text, parse_float=Decimal)
    return table["date"], {name: _price(fields) for name, fields in table["models"].items()}


def known(model: str) -> Price | None:
    """The list price of a model or of a dated snapshot of it; None if it is not in the table."""
    prices = table()[1]
    return prices.get(model) or prices.get(_SNAPSHOT.sub("", model))


def parse(text: str) -> Price:
    """A user's own price: "IN OUT [READ [WRITE [WRITE_HOUR]]]", USD for a million tokens.

    READ and WRITE default to IN, WRITE_HOUR to WRITE. UserError for any other text.
    """
    words = text.replace(",", " ").split()
    try:
        numbers = [_exact(Decimal(word)) for word in words]
    except (InvalidOperation, ValueError):
        numbers = []
    if not 2 <= len(numbers) <= 5:
        raise UserError(
            'expected a price like "2 10 0.2 2.5" (USD for a million tokens: in, out, cache read, cache write), '
            f"not {text!r}"
        )
    read = numbers[2] if len(numbers) > 2 else numbers[0]
    write = numbers[3] if len(numbers) > 3 else numbers[0]
    hour = numbers[4] if len(numbers) > 4 else write
    return Price(input=numbers[0], output=numbers[1], cache_read=read, cache_write=write, cache_write_hour=hour)


def _exact(value: Decimal) -> Decimal:
    """The value. ValueError if it is no price, or has more decimals than are counted."""
    if not value.is_finite() or value < 0 or value > MILLION or value != round(value, DECIMALS):
        raise ValueError(value)
    return value


def _price(fields: dict[str, Any]) -> Price:
    fields = dict(fields)
    above, long = fields.pop("above", None), fields.pop("long", None)
    exact = {name: _exact(Decimal(value)) for name, value in fields.items()}
    return Price(**exact, above=above, long=None if long is None else _price(long))
