"""progress.png."""

import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from campaigns import a_trial
from view_records import a_campaign, an_experiment, with_beliefs

from core.cli.render import plots
from core.records import Experiment, Measurement

ONLY_CRASHES = [an_experiment(0, "crash"), an_experiment(1, "invalid")]
ONE_SCORE = [an_experiment(0, "keep", val_bpb=1.0, spread=None)]


@pytest.mark.parametrize(
    "records",
    [[], ONLY_CRASHES, ONE_SCORE, a_campaign(1), a_campaign(9), a_campaign(120), with_beliefs(1), with_beliefs(120)],
    ids=["none", "crashes", "one score", "baseline", "short", "long", "believed baseline", "beliefs"],
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


def drawn(records: list[Experiment], again: Sequence[Measurement] = ()) -> Any:
    """The axes that the records are drawn on, and the figure laid out as it is saved."""
    figure = plots.new_figure(plots.SIZE_INCHES)
    axes, margin = figure.subplots(1, 2, width_ratios=(3.0, 1.0))
    plots._draw(axes, records, "night", again)
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


def test_beliefs_are_drawn_with_their_intervals_and_single_trials_are_faint() -> None:
    runs = (
        a_trial(val_bpb=1.70),
        a_trial(val_bpb=1.72, seed=2),
        a_trial(val_bpb=1.79, disturbed="other processes took 45% of the device"),
        a_trial(val_bpb=None, verdict="crash"),
    )
    known = {"champion_bpb": 1.8, "spread": None}
    records = [
        an_experiment(0, "keep", val_bpb=1.8, deviation=0.01, spread=None),
        an_experiment(1, "discard", val_bpb=1.81, deviation=0.02, probability=0.2, **known),
        an_experiment(2, "keep", val_bpb=1.71, deviation=0.005, probability=0.93, trials=runs, **known),
        an_experiment(3, "stopped", **known),
        an_experiment(4, "crash", **known),
    ]
    retried = Measurement(
        purpose="compare", series=2, role="champion", experiment=0, commit="0" * 40, trial=a_trial(val_bpb=1.805)
    )
    axes = drawn(records, [retried])
    assert points(axes, "single trials") == [(0, 1.8), (1, 1.81), (2, 1.7), (2, 1.72), (2, 1.805)]
    assert points(axes, "disturbed") == [(2, 1.79)]
    assert [x for x, _ in points(axes, "stopped early")] == [3]
    assert [x for x, _ in points(axes, "crash or invalid")] == [4]
    assert axes.get_title(loc="left").endswith("1.8000 → 1.7100 +- 0.0098 bpb after 4 experiments, 1 kept")
    band = next(one for one in axes.collections if one.get_label() == "champion, 95 %").get_paths()[0].vertices
    assert {round(float(y), 4) for x, y in band if 2 < x < 5} == {1.7002, 1.7198}
    ends = [
        end[1] for one in axes.containers for lines in one.lines[2] for ends in lines.get_segments() for end in ends
    ]
    assert sorted(round(float(end), 4) for end in ends) == [1.7002, 1.7198, 1.7708, 1.7804, 1.8196, 1.8492]
    listed = [text.get_text() for text in axes.get_figure().axes[1].texts]
    assert listed == ["kept", "2", "1.7100 +- 0.0098   +0.0900, 93 %", "idea 2"]
    low, _ = axes.get_ylim()
    assert low < 1.7002


@pytest.mark.parametrize("make", [a_campaign, with_beliefs])
@pytest.mark.parametrize("length", [3, 9, 120])
def test_the_legend_covers_no_point(length: int, make: Callable[[int], list[Experiment]]) -> None:
    axes = drawn([*make(length), an_experiment(length, "crash")])
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
