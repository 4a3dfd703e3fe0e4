"""A comparison as a table and as a plot."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
from campaigns import a_trial

from core.cli import compare as view
from core.cli.render import terminal
from core.measure.compare import Entry

CURVE = [{"step": step, "seconds": step * 0.5, "progress": step / 60, "loss": 6 / step} for step in range(1, 61)]


def entry(name: str, *scores: float) -> Entry:
    trials = tuple(
        a_trial(val_bpb=score, seed=seed, startup_seconds=2.0, scored_tokens=250, scored_bytes=1000)
        for seed, score in enumerate(scores, 1)
    )
    return Entry(name=name, trials=trials, curves=(CURVE,) * len(trials))


def test_losses_become_bits_per_byte_over_seconds_from_the_start() -> None:
    trial = a_trial(startup_seconds=2.0, scored_tokens=250, scored_bytes=1000)
    points = view.bits(trial, CURVE[:2])
    assert points == [(2.5, pytest.approx(6 / math.log(2) / 4)), (3.0, pytest.approx(3 / math.log(2) / 4))]
    assert len(view.bits(trial, CURVE)) == view.SMOOTHED
    assert view.bits(dataclasses.replace(trial, scored_tokens=None), CURVE) == []
    assert view.bits(trial, []) == []


def test_the_table_has_the_best_first_and_failures_told(capsys: pytest.CaptureFixture[str]) -> None:
    broken = Entry(name="broken", trials=(a_trial(val_bpb=None, verdict="crash", reason="out of memory"),))
    terminal.out().print(view.table([broken, entry("second", 1.6, 1.7), entry("first", 1.4)]))
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert [line[0] for line in lines[2:]] == ["first", "second", "broken"]
    assert lines[3][1:4] == ["1.6500", "0.1000", "1,2"]
    assert "crash: out of memory" in " ".join(lines[4])


def test_the_plot_shows_every_entry(tmp_path: Path) -> None:
    path = tmp_path / "compare.png"
    view.plot([entry("a", 1.5, 1.6), Entry(name="dot", trials=(a_trial(),))], path)
    with_curves = path.read_bytes()
    view.plot([Entry(name="dot", trials=(a_trial(),))], path)
    assert with_curves.startswith(b"\x89PNG") and with_curves != path.read_bytes()
    view.plot([Entry(name="broken", trials=(a_trial(val_bpb=None, verdict="crash", reason="x"),))], path)
    assert path.read_bytes().startswith(b"\x89PNG")
