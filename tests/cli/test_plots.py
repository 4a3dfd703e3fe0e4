"""progress.png."""

import struct
from pathlib import Path
from typing import Any

import pytest
from view_records import a_campaign, an_experiment

from core.cli.render import plots
from core.records import Experiment

ONLY_CRASHES = [an_experiment(0, "crash"), an_experiment(1, "invalid")]
ONE_SCORE = [an_experiment(0, "keep", val_bpb=1.0, spread=None)]


@pytest.mark.parametrize(
    "records",
    [[], ONLY_CRASHES, ONE_SCORE, a_campaign(1), a_campaign(9), a_campaign(120)],
    ids=["none", "crashes", "one score", "baseline", "short", "long"],
)
def test_any_campaign_can_be_drawn(records: list[Experiment], tmp_path: Path) -> None:
    path = tmp_path / "progress.png"
    plots.progress(records, path, "night")
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n")
    width, height = struct.unpack(">II", data[16:24])
    assert (width, height) == (round(plots.SIZE_INCHES[0] * plots.DPI), round(plots.SIZE_INCHES[1] * plots.DPI))
    assert list(tmp_path.iterdir()) == [path]


def test_equal_records_give_an_equal_picture_and_others_another(tmp_path: Path) -> None:
    first, again, other = (tmp_path / name for name in ("first.png", "again.png", "other.png"))
    plots.progress(a_campaign(9), first)
    plots.progress(a_campaign(9), again)
    plots.progress(a_campaign(10), other)
    assert first.read_bytes() == again.read_bytes()
    assert first.read_bytes() != other.read_bytes()


def test_any_hypothesis_can_be_drawn(tmp_path: Path) -> None:
    hostile = r"lr $\frac{1}{ 日本 $ \alpha_ ^ {} %"
    records = [*a_campaign(1), an_experiment(1, "keep", val_bpb=1.0, champion_bpb=2.1, hypothesis=hostile)]
    plots.progress(records, tmp_path / "progress.png", title=hostile)
    assert (tmp_path / "progress.png").stat().st_size > 10_000


def drawn(records: list[Experiment]) -> Any:
    """The axes that the records are drawn on, and the figure laid out as it is saved."""
    figure = plots.new_figure(plots.SIZE_INCHES)
    axes, margin = figure.subplots(1, 2, width_ratios=(3.0, 1.0))
    plots._draw(axes, records, "night")
    plots._list(margin, records)
    figure.canvas.draw()
    return axes


def points(axes: Any, label: str) -> list[tuple[float, float]]:
    found = next(one for one in axes.collections if one.get_label() == label)
    return [(float(x), float(y)) for x, y in found.get_offsets()]


def test_a_failure_stands_at_the_top_where_bad_scores_are() -> None:
    axes = drawn([*a_campaign(3), an_experiment(3, "crash"), an_experiment(4, "invalid")])
    low, high = axes.get_ylim()
    found = points(axes, "crash or invalid")
    assert [x for x, _ in found if x in (3, 4)] == [3, 4]
    assert all(y > low + 0.95 * (high - low) for _, y in found)


def test_a_gain_within_the_spread_is_drawn_and_named_as_one() -> None:
    records = [
        *a_campaign(1),
        an_experiment(1, "keep", val_bpb=2.0, champion_bpb=2.1),
        an_experiment(2, "keep", val_bpb=1.999, champion_bpb=2.0),
    ]
    axes = drawn(records)
    assert points(axes, "kept within the spread") == [(2, 1.999)]
    assert [x for x, _ in points(axes, "kept")] == [0, 1]
    assert axes.get_title(loc="left").endswith("2 kept (1 within the spread)")


@pytest.mark.parametrize("length", [3, 9, 120])
def test_the_legend_covers_no_point(length: int) -> None:
    axes = drawn([*a_campaign(length), an_experiment(length, "crash")])
    legend = axes.get_legend().get_window_extent()
    assert not legend.overlaps(axes.get_window_extent().padded(-1))
    assert legend.x1 <= axes.get_figure().bbox.x1


def test_one_diverged_model_does_not_flatten_the_rest() -> None:
    scored = [(e.number, e.val_bpb, e) for e in a_campaign(40) if e.val_bpb is not None]
    kept = [item for item in scored if item[2].verdict == "keep"]
    low, high = plots._limits(scored, kept)
    assert max(bpb for _, bpb, _ in scored) > 4.0
    assert low < min(bpb for _, bpb, _ in scored)
    assert 2.1 < high < 2.6
    assert all(low < bpb < high for _, bpb, _ in kept)
