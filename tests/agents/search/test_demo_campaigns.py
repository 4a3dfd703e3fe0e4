"""The demo's campaign on surrogates of recorded trials: it keeps something, and it climbs.

`python benchmarks/demo.py` shows the seeds one by one.
"""

from __future__ import annotations

import pytest

from benchmarks import demo
from core.agents.search import recorded
from presets import load


@pytest.mark.parametrize("seeds", [2, pytest.param(20, marks=pytest.mark.long)])
def test_every_campaign_keeps_two_and_the_median_gains(seeds: int) -> None:
    runs = [demo.run(load("demo"), seed, 12) for seed in range(seeds)]
    told = demo.report(runs)
    assert told["least_kept"] >= 2
    assert told["median_gain"] >= 0.15


def test_the_search_has_not_seen_the_trials_that_the_truth_is_fitted_to() -> None:
    rows = recorded.read()
    known, truth = demo.halves(rows, seed=3)
    first = rows[0].constants
    points = [{repr(row.constants) for row in half if row.constants != first} for half in (known, truth)]
    assert not points[0] & points[1]
    assert len(points[0]) >= 50 and len(points[1]) >= 50
    assert known[0] == truth[0] == rows[0]
