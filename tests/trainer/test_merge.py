"""Edits carried from one trainer to another: constants by value, lines by git, sizes in proportion."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.records import UserError
from core.store.repository import Repo
from core.trainer.constants import read_constants, write_constants
from core.trainer.merge import Merged, changed_constants, followed, merge, with_constants

TRAINER = """DEPTH = 4  # tune: int 2 .. 6
MATRIX_LR = 0.04  # tune: log 0.005 .. 0.2
WARMUP = 0.0  # tune: linear 0 .. 0.2


def loss(x):
    return x * MATRIX_LR


def main():
    print(loss(DEPTH))
"""


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """To merge lines it needs no repository."""
    return Repo(tmp_path_factory.mktemp("nowhere"), "autoresearch/t")


def edited(text: str, *pairs: tuple[str, str]) -> str:
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    return text


def test_a_change_goes_where_others_stand_on_the_lines_beside_it(repo: Repo) -> None:
    first = edited(TRAINER, ("DEPTH = 4", "DEPTH = 5"))
    second = edited(first, ("LR = 0.04", "LR = 0.05"), ("x * MATRIX_LR", "x * MATRIX_LR + WARMUP"))
    third = edited(second, ("WARMUP = 0.0", "WARMUP = 0.1"))
    assert merge(first, third, TRAINER, repo.merge_lines).text == edited(third, ("DEPTH = 5", "DEPTH = 4"))
    without_second = merge(second, third, first, repo.merge_lines)
    assert without_second == Merged(edited(first, ("WARMUP = 0.0", "WARMUP = 0.1")))


@pytest.mark.parametrize(
    ("change", "later"),
    [
        (("return x", "return 2 * x"), ("return 2 * x", "return 3 * x")),
        (("return x", "y = x\n    return y"), ("return y * MATRIX_LR", "return y")),
    ],
)
def test_what_was_changed_again_cant_go(repo: Repo, change: tuple[str, str], later: tuple[str, str]) -> None:
    after = edited(TRAINER, change)
    assert merge(after, edited(after, later), TRAINER, repo.merge_lines) == Merged(None)


def test_a_constant_that_was_set_again_stays_and_the_rest_goes(repo: Repo) -> None:
    after = edited(TRAINER, ("LR = 0.04", "LR = 0.05"), ("WARMUP = 0.0", "WARMUP = 0.1"))
    final = edited(after, ("LR = 0.05", "LR = 0.06"))
    left = merge(after, final, TRAINER, repo.merge_lines)
    assert left == Merged(edited(final, ("WARMUP = 0.1", "WARMUP = 0.0")), ("MATRIX_LR",))


def test_what_was_undone_leaves_nothing(repo: Repo) -> None:
    after = edited(TRAINER, ("LR = 0.04", "LR = 0.05"))
    assert merge(after, TRAINER, TRAINER, repo.merge_lines).text == TRAINER


def test_a_merged_text_that_is_no_python_is_an_error() -> None:
    with pytest.raises(UserError, match="syntax error"):
        merge(TRAINER, TRAINER, TRAINER, lambda base, ours, theirs: "(")


def test_lines_keep_their_ends_and_their_letters(repo: Repo) -> None:
    assert repo.merge_lines("a\r\n\r\nß", "a\r\n\r\nß", "b\r\n\r\nß") == "b\r\n\r\nß"


@pytest.mark.parametrize(
    ("name", "before", "after", "now", "carried"),
    [
        ("DEPTH", 4, 5, 8, 10),
        ("DEPTH", 4, 4, 8, 8),
        ("DEPTH", 4, 1, 2, 1),
        ("TOTAL_BATCH_SIZE", 8192, 4096, 524288, 262144),
        ("MATRIX_LR", 0.04, 0.06, 0.02, 0.03),
        ("MATRIX_LR", 0.04, 0.06, 0.04, 0.06),
        ("WINDOW", "L", "L", "SSSL", "SSSL"),
        ("WARMUP", 0.0, 0.1, 0.05, 0.1),  # no proportion to nothing
        ("WINDOW", "L", "SL", "SSSL", "SL"),
    ],
)
def test_an_edit_is_followed(name: str, before: object, after: object, now: object, carried: object) -> None:
    found = followed(name, before, after, now, TRAINER)  # type: ignore[arg-type]
    assert found == pytest.approx(carried) and type(found) is type(carried)


VALUES = st.fixed_dictionaries(
    {"DEPTH": st.integers(2, 6), "MATRIX_LR": st.sampled_from([0.01, 0.04, 0.1]), "WARMUP": st.sampled_from([0.0, 0.1])}
)


@given(base=VALUES, ours=VALUES, theirs=VALUES)
def test_constants_merge_each_by_itself(
    repo: Repo, base: dict[str, float], ours: dict[str, float], theirs: dict[str, float]
) -> None:
    """What only one side changed is that side's; what both changed to unlike values stays ours, and is named."""
    before, own, other = (write_constants(TRAINER, one) for one in (base, ours, theirs))
    both = [n for n in base if base[n] != ours[n] and base[n] != theirs[n] and ours[n] != theirs[n]]
    found = merge(before, own, other, lambda base, ours, theirs: ours if base == theirs else None)
    assert found.text is not None and found.ours == tuple(sorted(both))
    assert read_constants(found.text) == {n: theirs[n] if base[n] == ours[n] else ours[n] for n in base}


def test_constants_that_differ_and_that_are_set() -> None:
    other = edited(TRAINER, ("DEPTH = 4", "DEPTH = 6"), ("WARMUP = 0.0", "NEW = 1"))
    assert changed_constants(TRAINER, other) == {"DEPTH": (4, 6)}
    assert with_constants(TRAINER, {"DEPTH": 6, "OTHER": 2}) == edited(TRAINER, ("DEPTH = 4", "DEPTH = 6"))
