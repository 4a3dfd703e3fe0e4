"""The search against its opponents on the surrogate of recorded trials, in small: a worse search is noticed here.

`python benchmarks/search_against_random.py` is the whole comparison, on other seeds.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import benchmarks.search_against_random as comparison
from benchmarks.search import surrogate, table
from benchmarks.search.table import SPACES
from core.agents.search import recorded

BUDGET = 20.0
ROWS = recorded.read()


def test_the_table_holds_what_the_trainer_declares() -> None:
    """At least 120 trials; constants that still stand in the trainer, and values that its ranges allow."""
    assert len(ROWS) >= 120
    assert [row.number for row in ROWS] == list(range(len(ROWS)))
    assert all(list(row.constants) == list(SPACES) for row in ROWS)
    assert all((row.val_bpb is None) == (row.verdict != "scored") for row in ROWS)
    kinds = {kind: sum(row.kind == kind for row in ROWS) for kind in {row.kind for row in ROWS}}
    assert kinds["uniform"] + kinds["feasible"] >= 40 and kinds["search"] + kinds["near"] >= 50


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    table.start(path, ["a fact, with a comma"], SPACES)
    for row in ROWS[:30]:
        table.append(path, row)
    assert recorded.read(path) == ROWS[:30]


def test_the_surrogate_predicts_trials_that_it_has_not_seen() -> None:
    quality = surrogate.crossvalidated(ROWS, SPACES, BUDGET, seed=5)
    assert quality.r2 > 0.7 and quality.r2_low > 0.5
    assert quality.failures > max(0.93, quality.always_scored)


def test_the_surrogate_is_a_function_with_noise_from_outside() -> None:
    truth = surrogate.Surrogate(ROWS, SPACES, BUDGET)
    baseline = {name: tunable.value for name, tunable in SPACES.items()}
    measured = [row.val_bpb for row in ROWS if row.constants == baseline and row.seed == 1 and row.val_bpb is not None]
    assert truth.noise_free(baseline) == pytest.approx(sum(measured) / len(measured), abs=0.03)
    assert truth.noise_free(baseline) == truth.noise_free(baseline)
    assert truth.noise_free(baseline | {"DEPTH": 16, "ASPECT_RATIO": 96}) is None  # no step ends within the budget
    spread, freedom = surrogate.noise_of(ROWS)
    assert 0 < spread < 0.02 and freedom >= 3


@pytest.mark.long
def test_the_search_beats_random_search_and_its_harder_kin() -> None:
    """Forty campaigns of thirty, on seeds that nothing was chosen on."""
    told, _ = comparison.compare(recorded.RECORDED, count=40, experiments=30, first_seed=5_000, budget=BUDGET)
    against = told["agents"]
    assert against["random"]["search_lower"] >= 0.85
    assert against["random near"]["search_lower"] >= 0.75
    assert against["tpe"]["search_lower"] >= 0.65
    assert against["search"]["failures"] < against["random near"]["failures"]
