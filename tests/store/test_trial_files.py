"""What trials left in an experiment's folder."""

import json
from pathlib import Path

from core.store import trial_files


def test_trials_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("0", "10", "2", "trainer"):
        (tmp_path / name).mkdir()
    assert [path.name for path in trial_files.trials(tmp_path)] == ["0", "2", "10"]


def test_points_are_what_the_trial_left(tmp_path: Path) -> None:
    points = [{"step": i + 1, "seconds": 0.1, "progress": i / 2, "loss": 3.0 - i} for i in range(2)]
    (tmp_path / "curve.jsonl").write_text("".join(json.dumps(point) + "\n" for point in points), encoding="utf-8")
    assert trial_files.points(tmp_path) == points
    assert trial_files.points(tmp_path / "missing") == []


def test_a_curve_ends_before_a_line_that_was_cut(tmp_path: Path) -> None:
    (tmp_path / "curve.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"st', encoding="utf-8")
    assert trial_files.points(tmp_path) == [{"step": 1}, {"step": 2}]
    assert trial_files.points(tmp_path, 18) == [{"step": 1}]


def test_a_thinned_curve_keeps_its_ends() -> None:
    curve = [{"step": float(step)} for step in range(100)]
    found = trial_files.thinned(curve, 12)
    assert len(found) == 12 and (found[0], found[-1]) == (curve[0], curve[-1])
    assert trial_files.thinned(curve[:5], 12) == curve[:5]


def test_what_was_printed_before_memory_ran_out_comes_first(tmp_path: Path) -> None:
    (tmp_path / "output.txt").write_text("second\n", encoding="utf-8")
    (tmp_path / "output-out-of-memory.txt").write_text("first\n", encoding="utf-8")
    assert trial_files.printed(tmp_path) == "first\nsecond\n"
    assert trial_files.printed(tmp_path / "missing") == ""


def test_what_was_printed_can_not_drive_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "output.txt").write_text("a\x1b]0;title\x07b\r\n\tc\x9b2J\n", encoding="utf-8")
    assert trial_files.printed(tmp_path) == "ab\n\tc2J\n"
