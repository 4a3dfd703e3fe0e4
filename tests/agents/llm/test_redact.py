"""No key gets through, and nothing else is touched."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.agents.llm.redact import MARK, Redactor

KEY = "my+odd/key=0123"


@pytest.mark.parametrize(
    "text",
    [
        f"before {KEY} after",
        f"{KEY}{KEY}",
        json.dumps({"text": f'a "quoted" {KEY}'}),
        f"Authorization: Bearer {KEY}",
    ],
)
def test_a_key_in_use_is_taken_out(text: str) -> None:
    assert KEY not in Redactor([KEY])(text) and MARK in Redactor([KEY])(text)


@pytest.mark.parametrize(
    "text",
    [
        "authorization: Bearer abcdefgh01234567",
        "{'Authorization': 'Bearer abcdefgh01234567'}",
        json.dumps({"x-api-key": "abcdefgh01234567"}),
        json.dumps(json.dumps({"x-api-key": "abcdefgh01234567"})),
        "the key is sk-ant-abcdefgh01234567-xyz",
        "x-api-key=abcdefgh01234567",
    ],
)
def test_what_looks_like_a_key_is_taken_out_too(text: str) -> None:
    redacted = Redactor([])(text)
    assert "abcdefgh01234567" not in redacted and MARK in redacted


def test_other_text_stays_as_it_is() -> None:
    text = "Bearer of news; sk-learn; the authorization of none; api_key = None; task-0123456789abcdefghij"
    assert Redactor([KEY, "none", ""])(text) == text


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.lists(st.sampled_from([*KEY, KEY, KEY[:6], "m", " "]), max_size=12).map("".join), st.integers(1, 5))
def test_a_key_in_pieces_is_held_until_it_is_whole(text: str, size: int) -> None:
    redact = Redactor([KEY])
    out, held = "", ""
    for at in range(0, len(text), size):
        whole = held + text[at : at + size]
        count = redact.held(whole)
        held = whole[len(whole) - count :]
        out += redact(whole[: len(whole) - count])
    assert KEY not in out + redact(held)
    assert (out + redact(held)).replace(MARK, "") == text.replace(KEY, "")
