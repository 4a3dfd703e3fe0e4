"""Benchmarks of a run as text."""

from __future__ import annotations

import dataclasses

import pytest

from core.cli import bench as view
from core.cli.render import terminal
from core.measure.bench import BenchmarkRun, Result

CPU = "cpu (a processor)"


def result(suite: str, name: str, median: float, **facts: object) -> Result:
    return Result(
        suite=suite, name=name, median=median, best=median, q1=0.99 * median, q3=1.01 * median, rounds=3, facts=facts
    )


RUN = BenchmarkRun(
    when="2026-01-02T03:04:05.678",
    machine={
        "processor": "a processor", "cores": 2, "accelerators": ["a card"], "preset": {"name": "cpu"}, "quick": False,
        "versions": {"torch": "2.9.0", "numpy": "2.1"},
    },
    commit={"id": "0123456789abcdef", "dirty": True},
    results=(
        result("peak", "numpy", 0.5, device=CPU, flops=1e11),
        result("step", "step[torch]", 2.0, device=CPU, tokens=8192, flops=1e11),
        result("tokenizer", "encoding", 0.0042, bytes=42_000),
        result("experiment", "status", 0.000033),
    ),
)  # fmt: skip


def test_the_table_has_rates_shares_and_what_became_slower(capsys: pytest.CaptureFixture[str]) -> None:
    before = dataclasses.replace(RUN, results=(result("step", "step[torch]", 1.6), result("peak", "numpy", 0.625)))
    terminal.out().print(view.table(RUN, before))
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines[2] == "peak numpy 500 ms 10 ms 200G FLOP/s 100.0% 0.80x".split()
    assert lines[3] == "step step[torch] 2 s 40 ms 4.1K tokens/s 25.0% 1.25x slower".split()
    assert lines[4] == "tokenizer encoding 4.2 ms 84 us 10M bytes/s - -".split()
    assert lines[5] == "experiment status 33 us 0.66 us - - -".split()


def test_the_heading_tells_machine_versions_and_commit() -> None:
    assert view.heading(RUN) == (
        "2 cores of a processor, a card; preset cpu; numpy 2.1, torch 2.9.0; commit 0123456789+"
    )


def test_the_notes_tell_what_it_is_held_against() -> None:
    before = dataclasses.replace(RUN, machine={**RUN.machine, "versions": {"torch": "2.8.0", "numpy": "2.1"}})
    assert view.notes(RUN, before)[1:] == [
        "of peak: of the FLOP/s of the best matrix product on the same device",
        "before: 2026-01-02T03:04:05; torch 2.8.0 -> 2.9.0",
    ]
    assert view.notes(RUN, RUN)[-1].endswith("; same versions and commit")
    assert view.notes(dataclasses.replace(RUN, results=RUN.results[2:]), None) == ["spread: between the quartiles"]
