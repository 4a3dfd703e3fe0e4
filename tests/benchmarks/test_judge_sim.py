"""The simulator of judges: cells from a file, equal worlds for all policies, and what it prints."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import judge_sim
from benchmarks.judge.policies import POLICIES
from benchmarks.judge.world import Cell, World, cell_of
from core.records import UserError

FIGURES = ["true_gain", "undone", "wrong_keeps", "keeps", "missed", "optimism", "device_hours"]
SMALL: dict[str, Any] = {"p_good": 0.3, "gain_scale": 0.01, "noise": 0.002, "experiments": 12, "campaigns": 2}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([1], "a cell is an object"),
        ({"p_god": 0.1}, "unknown key p_god"),
        ({"noise": "much"}, "noise of a cell is int or float, not 'much'"),
        ({"experiments": True}, "experiments of a cell is int"),
        ({"pairing": 1.5}, "shares of a cell lie between 0 and 1"),
        ({"campaigns": 0}, "at least one experiment and one campaign"),
    ],
)
def test_a_cell_that_is_none_is_refused(data: object, said: str) -> None:
    with pytest.raises(UserError, match=said):
        cell_of(data)


def test_a_world_is_the_same_for_every_policy_and_has_its_noise() -> None:
    cell = Cell(noise=0.01, pairing=0.5, crash_rate=0.2)
    one, other = World(cell, 3), World(cell, 3)
    assert [one.proposal(n, 0.0) for n in range(50)] == [other.proposal(n, 0.0) for n in range(50)]
    crashed = sum(one.proposal(n, 0.0) is None for n in range(1000)) / 1000
    assert 0.15 < crashed < 0.25
    pairs = [(World(cell, n).score(1.0, 1, 0, 1), World(cell, n).score(1.0, 1, 1, 1)) for n in range(800)]
    mean = sum(x for pair in pairs for x in pair) / 1600
    variance = sum((x - mean) ** 2 for pair in pairs for x in pair) / 1600
    shared = sum((a - mean) * (b - mean) for a, b in pairs) / 800
    assert mean == pytest.approx(1.0, abs=0.001)
    assert variance**0.5 == pytest.approx(0.01, rel=0.1)
    assert shared / variance == pytest.approx(0.5, abs=0.1)


def test_good_ones_grow_smaller_as_the_trainer_gets_better() -> None:
    world = World(Cell(p_good=1.0, crash_rate=0.0, gain_scale=0.01, shrink=10.0), 0)
    first, later = (sum(world.proposal(n, gained) or 0.0 for n in range(300)) for gained in (0.0, 0.1))
    assert later == pytest.approx(first / 2.718, rel=0.01)


@pytest.mark.parametrize("policy", POLICIES)
def test_without_noise_every_policy_keeps_what_is_better(policy: str) -> None:
    cell = Cell(**{**SMALL, "noise": 0.0, "campaigns": 1, "p_nothing": 0.0})
    found = judge_sim.figures(cell, policy)
    assert found["true_gain"] > 0
    assert (found["undone"], found["wrong_keeps"]) == (0, 0)
    assert found["optimism"] == pytest.approx(0, abs=1e-5)
    assert found["device_hours"] == pytest.approx(1.0, abs=0.4)


def test_it_prints_an_object_a_cell_and_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cells.json"
    path.write_text(json.dumps([SMALL]), encoding="utf-8")
    assert judge_sim.main(["--cells", str(path), "--json", "--jobs", "1", "--policies", "greedy", "belief"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["policy"] for row in rows] == ["greedy", "belief"]
    assert list(rows[0]) == [field.name for field in dataclasses.fields(Cell)] + ["policy", *FIGURES]
    assert rows[0]["gain_scale"] == 0.01


def test_a_file_that_is_no_json_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cells.json"
    path.write_text("gain: 1", encoding="utf-8")
    assert judge_sim.main(["--cells", str(path)]) == 2
    assert f"judge_sim: {path} is no JSON" in capsys.readouterr().err
