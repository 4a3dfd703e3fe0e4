"""One experiment in full."""

from core.cli import show
from core.store.trial_files import Point


def curve(losses: list[float]) -> list[Point]:
    return [
        {"step": i + 1, "seconds": 0.1 * i, "progress": i / len(losses), "loss": loss} for i, loss in enumerate(losses)
    ]


def heights(losses: list[float]) -> list[int]:
    """How many eighths of a line each column of the chart is high."""
    lines = show.chart(curve(losses)).plain.splitlines()[: show.CHART_HEIGHT]
    columns = zip(*(line[10:].ljust(show.CHART_WIDTH) for line in lines), strict=True)
    return [sum(show.BLOCKS.index(cell) for cell in column) for column in columns][: len(losses)]


def test_a_falling_loss_falls_to_the_right() -> None:
    found = heights([5.0, 4.0, 3.5, 3.2, 3.0])
    assert found == sorted(found, reverse=True)
    assert found[1] == 8 * show.CHART_HEIGHT
    assert found[-1] == 1


def test_the_first_loss_does_not_flatten_the_rest() -> None:
    found = heights([90.0, 3.0, 2.5, 2.0])
    assert found[1] - found[3] > 4 * show.CHART_HEIGHT


def test_a_long_curve_fits_and_an_equal_one_is_drawn() -> None:
    text = show.chart(curve([3.0 - i / 1000 for i in range(1000)])).plain
    assert max(map(len, text.splitlines())) <= show.MARGIN + show.CHART_WIDTH
    narrow = show.chart(curve([3.0 - i / 1000 for i in range(1000)]), 60).plain
    assert max(map(len, narrow.splitlines())) == 60
    assert "2.0010 at step 1000" in narrow
    assert "2.0010 at step 1000" in text
    assert set(heights([2.0, 2.0, 2.0])) == {1}
    assert "no loss" in show.chart([]).plain
