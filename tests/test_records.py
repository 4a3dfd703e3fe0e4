"""Texts that records hold and that code takes apart."""

from __future__ import annotations

import pytest

from core.records import Choice, DeviceName


@pytest.mark.parametrize(
    ("text", "value", "reason"),
    [
        ("sdpa (no flash-attn)", "sdpa", "no flash-attn"),
        ("flex (layers (with a window) only)", "flex", "layers (with a window) only"),
        ("sdpa", "sdpa", ""),
        ("", "", ""),
        ("cut off (because it is", "cut off (because it is", ""),
        ("empty ()", "empty ()", ""),
    ],
)
def test_a_choice_is_its_value_and_its_reason_and_keeps_its_text(text: str, value: str, reason: str) -> None:
    choice = Choice.parse(text)
    assert (choice.value, choice.reason, str(choice)) == (value, reason, text)


@pytest.mark.parametrize(
    ("text", "kind", "index"),
    [("cuda", "cuda", None), ("cuda:1", "cuda", 1), ("cpu", "cpu", None), ("cuda:x", "cuda:x", None), ("", "", None)],
)
def test_a_device_name_is_a_kind_and_an_index(text: str, kind: str, index: int | None) -> None:
    name = DeviceName.parse(text)
    assert (name.kind, name.index, str(name)) == (kind, index, text)
