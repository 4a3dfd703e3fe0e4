"""How numbers and words look."""

from statistics import NormalDist

import pytest

from core.system import text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1m 00s"),
        (425, "7m 05s"),
        (3599.6, "1h 00m"),
        (12_000, "3h 20m"),
    ],
)
def test_a_duration_is_told_in_its_largest_unit(value: float, shown: str) -> None:
    assert text.seconds(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (0, "0"),
        (812, "812"),
        (999.6, "1K"),
        (11_700, "11.7K"),
        (999_400, "999K"),
        (999_900, "1M"),
        (50_331_648, "50.3M"),
        (989.5e12, "990T"),
    ],
)
def test_a_count_has_the_letter_of_its_thousands(value: float | None, shown: str) -> None:
    assert text.count(value) == shown


@pytest.mark.parametrize(
    ("value", "deviation", "shown"),
    [(None, None, "-"), (None, 0.1, "-"), (1.73149, None, "1.7315"), (1.7315, 0.00107, "1.7315 +- 0.0021")],
)
def test_a_belief_has_its_interval_of_95_percent(value: float | None, deviation: float | None, shown: str) -> None:
    assert text.bpb(value, deviation) == shown
    if deviation is not None:
        inside = NormalDist(0.0, deviation).cdf(text.half_width(deviation) or 0.0)
        assert 2 * inside - 1 == pytest.approx(0.95, abs=1e-4)


@pytest.mark.parametrize(
    ("probability", "shown"),
    [(None, "-"), (0.0, "<1 %"), (0.013, "1 %"), (0.93, "93 %"), (0.989, "99 %"), (0.9999, ">99 %"), (1.0, ">99 %")],
)
def test_no_chance_is_told_as_certain(probability: float | None, shown: str) -> None:
    assert text.chance(probability) == shown


def test_a_line_has_no_breaks_tabs_colours_or_control_characters() -> None:
    assert text.one_line("wider\theads,\r\n\x1b[31mfewer layers\x07") == "wider heads, fewer layers"


def test_a_long_line_is_cut_with_an_ellipsis() -> None:
    assert text.one_line("a" * 20, 8) == "a" * 7 + "…"
    assert text.one_line("a" * 8, 8) == "a" * 8


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("a\r\nb\rc\n\td", "a\nb\nc\n\td"),
        ("\x1b[1;31mred\x1b[0m \x1b(Bplain\x1b", "red Bplain"),
        ("\x1b]0;title\x07said \x1b]8;;http://x\x1b\\link", "said link"),
        ("\x1b]0;no end\nthe next line", "\nthe next line"),
        ("nul \0 bell \a zero\u200bwidth \u202eright to left", "nul  bell  zerowidth right to left"),
        ("half a pair \ud83d", "half a pair \ufffd"),
    ],
)
def test_clean_text_can_neither_drive_a_terminal_nor_hide(raw: str, cleaned: str) -> None:
    assert text.clean(raw) == cleaned
    assert text.clean(cleaned) == cleaned


def test_valid_text_is_left_as_it_is_and_a_split_pair_is_joined() -> None:
    assert text.valid("é\x1b[0m\U0001f600") == "é\x1b[0m\U0001f600"
    assert text.valid("\ud83d\ude00 \ude00") == "\U0001f600 \ufffd"
