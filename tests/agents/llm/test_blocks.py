"""What a model wrote, made safe to hand on."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.agents.llm.blocks import encodable, tool_input


@pytest.mark.parametrize(
    ("raw", "parsed"),
    [
        ("", {}),
        ('{"a": 1}', {"a": 1}),
        ('{"a": 1', '{"a": 1'),
        ("[1]", "[1]"),
        ("null", "null"),
        ('{"a":' * 49 + "1" + "}" * 49, None),
        ('{"a":' * 60 + "1" + "}" * 60, '{"a":' * 60 + "1" + "}" * 60),
        ("[" * 100_000, "[" * 100_000),
        ('{"a": 1' + "0" * 5000 + "}", '{"a": 1' + "0" * 5000 + "}"),  # more digits than Python turns into a number
    ],
)
def test_an_input_that_is_no_object_stays_text(raw: str, parsed: Any) -> None:
    assert tool_input(raw) == (json.loads(raw) if parsed is None else parsed)


def test_a_whole_pair_is_a_character_and_half_of_one_is_none() -> None:
    assert encodable("\ud83d\ude00 \ud83d") == "\U0001f600 \ufffd"


@settings(deadline=None, derandomize=True)
@given(st.lists(st.dictionaries(st.text(st.characters(codec=None), max_size=4), st.integers(), max_size=3)))
def test_everything_can_be_encoded_and_what_could_be_stays(values: list[dict[str, int]]) -> None:
    safe = encodable(values)
    str(safe).encode()
    for before, after in zip(values, safe, strict=True):
        if all(key.isascii() for key in before):
            assert after == before
