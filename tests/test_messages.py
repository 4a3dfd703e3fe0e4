"""A candidate's commit message reads back exactly."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from core import messages

# Any code point, lone surrogates too: an agent's text comes from anywhere.
ANY = st.text(st.characters(codec=None, exclude_categories=[]))


@given(ANY, st.integers(0, 10**6), ANY)
@example("a\nb", 3, "try")
@example("one\n\nExperiment: 5\nAgent: x", 3, "try")
@example("   \n\n ", 1, "")
@example("nul \0 bell \a\r\nnext", 1, "a\nb")
def test_round_trip(hypothesis: str, number: int, agent: str) -> None:
    canonical = messages.canonical(hypothesis)
    assert messages.canonical(canonical) == canonical
    name = messages.agent_name(agent)
    message = messages.compose(canonical, number, name)
    message.encode()
    assert "\0" not in message
    assert messages.parse(message) == (canonical, number, name)


def test_the_subject_is_the_first_line() -> None:
    assert messages.canonical(" raise MATRIX_LR \nbecause it\n  was low\n") == (
        "raise MATRIX_LR\n\nbecause it\n  was low"
    )


def test_a_flood_is_cut() -> None:
    cut = messages.canonical("x" * 2_000_000)
    assert len(cut) < 21_000
    assert "cut after" in cut
    assert messages.canonical(cut) == cut


def test_another_message_is_not_ours() -> None:
    assert messages.parse("a person's commit\n") is None
    assert messages.parse("x\n\nExperiment: one\nAgent: y\n") is None
