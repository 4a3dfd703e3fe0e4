"""A candidate's commit message reads back exactly."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from core.store import commit_message
from core.system.text import one_line

# Any code point, lone surrogates too: an agent's text comes from anywhere.
ANY = st.text(st.characters(codec=None, exclude_categories=[]))


@given(ANY, st.integers(0, 10**6), ANY)
@example("a\nb", 3, "try")
@example("one\n\nExperiment: 5\nAgent: x", 3, "try")
@example("   \n\n ", 1, "")
@example("nul \0 bell \a\r\nnext", 1, "a\nb")
def test_round_trip(hypothesis: str, number: int, agent: str) -> None:
    canonical = commit_message.canonical(hypothesis)
    assert commit_message.canonical(canonical) == canonical
    name = one_line(agent)
    message = commit_message.compose(canonical, number, name)
    message.encode()
    assert "\0" not in message
    assert commit_message.parse(message) == (canonical, number, name)


def test_the_subject_is_the_first_line() -> None:
    assert commit_message.canonical(" raise MATRIX_LR \nbecause it\n  was low\n") == (
        "raise MATRIX_LR\n\nbecause it\n  was low"
    )


def test_a_flood_is_cut() -> None:
    cut = commit_message.canonical("x" * 2_000_000)
    assert len(cut) < 21_000
    assert "cut after" in cut
    assert commit_message.canonical(cut) == cut


def test_another_message_is_not_ours() -> None:
    assert commit_message.parse("a person's commit\n") is None
    assert commit_message.parse("x\n\nExperiment: one\nAgent: y\n") is None
