"""Real trials that a rule stops, or would have stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from core.records import CURVE, FACTS, WEIGHTS, Trial
from core.store import trial_files
from core.trial.stop_rule import LossCurve, StopRule

SECONDS = 1.0
# A champion that nothing comes near to, on other batches.
CHAMPION = LossCurve(points=tuple((n, n / 50, 5.54 if n == 1 else 0.5) for n in range(1, 51)), batches=(1, 8, 1))
HOPELESS = StopRule(champion=CHAMPION, progress=(0.3, 0.95), equal=(0.1, 0.1), other=(0.2, 0.2), chance=0.01)


def test_a_hopeless_trial_ends_at_the_rules_point_without_a_score(run: Callable[..., Trial], tmp_path: Path) -> None:
    trial = run(seconds=SECONDS, stop=HOPELESS)
    assert (trial.verdict, trial.val_bpb, trial.weights_sha256) == ("stopped", None, None)
    assert trial.stop_progress is not None
    curve = trial_files.points(tmp_path / "trial" / "1")
    assert trial.stop_progress == curve[-1]["progress"]
    assert curve[-2]["progress"] < 0.3 <= trial.stop_progress
    assert 0 <= trial.train_seconds / SECONDS - trial.stop_progress < 0.02
    assert trial.reason.startswith(f"at {trial.stop_progress:.0%} of its time the loss was ")
    assert trial.tokens_per_second == pytest.approx(trial.tokens / trial.train_seconds)
    left = {path.name for path in (tmp_path / "trial" / "1").iterdir()}
    assert CURVE in left and not left & {WEIGHTS, FACTS}


def test_in_secret_it_runs_on_and_the_record_says_where_it_would_have_ended(run: Callable[..., Trial]) -> None:
    trial = run(seconds=SECONDS, stop=replace(HOPELESS, secret=True))
    assert trial.verdict == "scored" and trial.val_bpb is not None
    assert trial.stop_progress is not None and 0.3 <= trial.stop_progress < 0.9
    assert trial.train_seconds > 0.8 * SECONDS


def test_one_that_keeps_up_runs_to_its_end(run: Callable[..., Trial]) -> None:
    easy = LossCurve(points=tuple((n, n / 50, 5.54) for n in range(1, 51)), batches=(1, 8, 1))
    trial = run(seconds=SECONDS, stop=replace(HOPELESS, champion=easy))
    assert (trial.verdict, trial.stop_progress) == ("scored", None)
