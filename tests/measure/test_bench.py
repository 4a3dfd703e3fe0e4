"""`autoresearch bench`: what is run, kept and held against what; ratios and shares of records checked by hand."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import psutil
import pytest
from command import call

import backends
import presets
from core.measure import bench
from core.measure.bench import BenchmarkRun, Result
from core.measure.bench_estimate import FIXED, ExpectedTime, expected_time
from core.records import UserError, to_json
from core.system import accelerators, hardware, install
from presets import cost
from presets import estimate as estimates

CPU, GPU = "cpu (a processor)", "cuda (a card)"
MACHINE = {
    "processor": "a processor", "cores": 2, "accelerators": ["a card"], "preset": {"name": "cpu", "depth": 4},
    "quick": False, "versions": {"torch": "2.9.0", "numpy": "2.1"}, "memory_mb": 1000.0,
}  # fmt: skip


def result(suite: str = "step", name: str = "step[torch]", median: float = 1.0, **changes: Any) -> Result:
    """Quartiles 10 % around the median, the best 20 % below it."""
    held = {"best": 0.8 * median, "q1": 0.9 * median, "q3": 1.1 * median, "rounds": 5, "facts": {}, **changes}
    return Result(suite=suite, name=name, median=median, **held)


def a_run(*results: Result, dirty: bool = False, **machine: Any) -> BenchmarkRun:
    commit = {"id": "0123456789abcdef", "dirty": dirty}
    return BenchmarkRun(when="2026-01-02T03:04:05.678", machine={**MACHINE, **machine}, commit=commit, results=results)


def document(name: str = "test_a", median: float = 1.0, **machine: Any) -> dict[str, Any]:
    """What pytest-benchmark writes of one benchmark, as far as it is read."""
    stats = {"median": median, "min": 0.8 * median, "q1": 0.9 * median, "q3": 1.1 * median, "rounds": 5}
    return {
        "datetime": "2026-01-02T03:04:05.678", "machine_info": {**MACHINE, **machine},
        "commit_info": {"id": "0123456789abcdef", "dirty": False},
        "benchmarks": [{"group": "packing", "name": name, "stats": stats, "extra_info": {"tokens": 10}}],
    }  # fmt: skip


# What a number is held against


def test_the_peak_is_the_best_product_on_the_same_device() -> None:
    step = result(facts={"device": CPU, "flops": 3e9, "tokens": 100})
    run = a_run(
        result("peak", "numpy", 1.0, facts={"device": CPU, "flops": 8e9}),  # at its best 10 GFLOP/s
        result("peak", "product[jax]", 2.0, facts={"device": CPU, "flops": 8e9}),
        result("peak", "product[torch]", 1.0, facts={"device": GPU, "flops": 8e12}),
        step,
    )
    assert run.peak(CPU) == pytest.approx(10e9)
    assert run.peak(GPU) == pytest.approx(10e12)
    assert run.share_of_peak(step) == pytest.approx(0.3)
    assert run.share_of_peak(result(facts={"device": CPU, "tokens": 5})) is None
    assert run.share_of_peak(result("packing")) is None
    assert a_run(step).share_of_peak(step) is None
    assert (step.rate("tokens"), step.rate("bytes")) == (100.0, None)


@pytest.mark.parametrize(
    ("median", "expected"),
    [
        (1.0, (1.0, False)),
        (0.5, (0.5, False)),
        (1.3, (1.3, True)),  # its quartiles begin at 1.17, those before end at 1.1
        (1.2, (1.2, False)),  # beyond the margin, but the quartiles overlap: 1.08 against 1.1
    ],
)
def test_slower_is_what_lies_beyond_the_spread_of_both(median: float, expected: tuple[float, bool]) -> None:
    before = a_run(result(median=1.0), result("optimizer", "update[torch]", 9.0))
    found = result(median=median).against(before)
    assert found == (pytest.approx(expected[0]), expected[1])


def test_a_steady_benchmark_is_slower_only_beyond_a_tenth() -> None:
    before = a_run(result(q3=1.0))
    assert result(median=1.09, q1=1.09).against(before) == (pytest.approx(1.09), False)
    assert result(median=1.11, q1=1.11).against(before) == (pytest.approx(1.11), True)


def test_what_is_new_has_no_ratio() -> None:
    assert result().against(None) is None
    assert result().against(a_run(result("optimizer"), result(name="step[jax]"))) is None


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"memory_mb": 999.0, "versions": {"torch": "2.10.0"}}, True),
        ({"processor": "another"}, False),
        ({"cores": 4}, False),
        ({"accelerators": []}, False),
        ({"preset": {"name": "cpu", "depth": 5}}, False),
        ({"quick": True}, False),
    ],
)
def test_runs_compare_on_one_machine_at_the_same_shapes(change: dict[str, Any], same: bool) -> None:
    assert bench.comparable(a_run(), a_run(**change)) is same


def test_versions_and_commits_that_differ_are_told() -> None:
    new = a_run(dirty=True, versions={"torch": "2.10.0", "numpy": "2.1", "jax": "0.7"})
    assert new.changes_since(a_run()) == ["torch 2.9.0 -> 2.10.0", "commit 0123456789 -> 0123456789+"]
    assert new.changes_since(new) == []


def test_rows_are_json_with_every_rate_and_fact() -> None:
    facts = {"device": CPU, "backend": "torch", "tokens": 100, "flops": 4e9}
    run = a_run(result("peak", "numpy", facts={"device": CPU, "flops": 8e9}), result(median=2.0, facts=facts))
    row = run.rows(a_run(result(median=1.0)))[1]
    assert row == json.loads(json.dumps(row))
    assert (row["suite"], row["name"], row["rounds"], row["backend"]) == ("step", "step[torch]", 5, "torch")
    assert (row["tokens_per_second"], row["bytes_per_second"], row["flops_per_second"]) == (50.0, None, 2e9)
    assert (row["iqr_seconds"], row["share_of_peak"]) == (pytest.approx(0.4), pytest.approx(0.2))
    assert (row["against_before"], row["slower"]) == (2.0, True)


# What is kept


def test_the_newest_run_of_the_same_machine_is_found(fresh_cache: Path) -> None:
    assert bench.last_like(a_run(), pytest.fail) is None
    for median, cores in ((1.0, 2), (2.0, 2), (3.0, 64)):
        bench.keep(document(median=median, cores=cores), "cpu")
    found = bench.last_like(a_run(), pytest.fail)
    assert found is not None and found.results[0] == result("packing", "a", 2.0, facts={"tokens": 10})


@pytest.mark.parametrize("text", ["{", "[]", '{"benchmarks": []}', '{"benchmarks": [{"group": "peak"}]}', ""])
def test_a_damaged_file_is_skipped_with_a_notice(text: str, fresh_cache: Path) -> None:
    bench.keep(document(), "cpu")
    damaged = bench.folder() / "99991231T000000.000000Z-cpu.json"
    damaged.write_text(text, encoding="utf-8")
    told: list[str] = []
    assert bench.last_like(a_run(), told.append) == bench.parse(document())
    (line,) = told
    assert line.startswith("skipped: ") and str(damaged) in line
    with pytest.raises(UserError, match="is no run of autoresearch bench"):
        bench.read(damaged)


def test_runs_of_one_second_are_kept_side_by_side(fresh_cache: Path) -> None:
    paths = [bench.keep(document(median=number), "cpu") for number in (1.0, 2.0, 3.0)]
    assert sorted(bench.folder().iterdir()) == paths
    assert [bench.read(path).results[0].median for path in paths] == [1.0, 2.0, 3.0]


# How long it will take


def earlier(suite: str, backend: str, seconds: float | None, **machine: Any) -> dict[str, Any]:
    """A saved run of this machine with the preset smoke."""
    here = {
        "processor": hardware.processor(), "cores": hardware.cores(), "preset": to_json(presets.load("smoke")),
        "accelerators": [one.name for one in accelerators.accelerators()], "quick": True,
    }  # fmt: skip
    held = document(**{**here, **machine})
    held["benchmarks"][0] |= {"group": suite, "extra_info": {"backend": backend}, "wall_seconds": seconds}
    return held


def test_a_run_takes_what_it_took_before_on_this_machine(fresh_cache: Path) -> None:
    preset = presets.load("smoke")
    sides = {"torch": preset, "jax": dataclasses.replace(preset, backend="jax")}
    kept = [
        earlier("scoring", "torch", 500.0),
        earlier("scoring", "torch", 20.0),  # the newest counts
        earlier("scoring", "jax", 30.0),
        earlier("scoring", "torch", 900.0, cores=999),
        earlier("scoring", "torch", 900.0, quick=False),
        earlier("scoring", "jax", None),  # a file of an older version
    ]
    for one in kept:
        bench.keep(one, "smoke")
    found = expected_time(["scoring", "packing"], preset, sides, quick=True)
    assert found == ExpectedTime(50.0 + FIXED["packing"], "what it took before, times of another machine")


@pytest.mark.parametrize(("quick", "calls"), [(True, 2 + 4), (False, 2 + 40)])
def test_a_first_run_takes_its_flop_at_the_devices_peak(
    fresh_cache: Path, monkeypatch: pytest.MonkeyPatch, quick: bool, calls: int
) -> None:
    if reason := backends.get("torch").missing():
        pytest.skip(reason)
    preset = dataclasses.replace(presets.load("smoke"), backend="torch", device="cpu")
    step_flops = cost.rows(preset) * preset.sequence_length * cost.flops_per_token(preset)
    # A peak at which a step takes a quarter of a second: training is assumed to reach a share of it.
    monkeypatch.setattr(hardware, "matrix_flops", lambda: 4 * step_flops / estimates.CPU_UTILIZATION)
    found = expected_time(["step"], preset, {"torch": preset}, quick=quick)
    assert found.source == "the preset's FLOP at this device's peak"
    assert found.seconds == pytest.approx(estimates.STARTUP_SECONDS["cpu"] + calls / 4, rel=0.1)
    # NumPy's product has no process of its own backend: 50 rounds at most, of a hundredth of a second each.
    monkeypatch.setattr(hardware, "matrix_flops", lambda: 2 * hardware.MATRIX**3 / 0.01)
    assert expected_time(["peak"], preset, {}, quick=quick).seconds == pytest.approx(0.52)


# What is run


def test_suites_run_in_their_order_and_a_step_brings_the_peak() -> None:
    assert bench.chosen([]) == ["peak", "step", "optimizer", "scoring", "packing", "tokenizer"]
    assert bench.chosen(["all"]) == list(bench.SUITES)
    assert bench.chosen(["tokenizer", "step"]) == ["peak", "step", "tokenizer"]
    assert bench.chosen(["experiment"]) == ["experiment"]


def run_quickly(*arguments: object) -> Any:
    return call("bench", *arguments, "--quick", "--json").json


def test_a_run_is_kept_and_held_against_the_last(fresh_cache: Path) -> None:
    first, second = (run_quickly("packing") for _ in range(2))
    assert [row["name"].partition("[")[0] for row in first["results"]] == ["packing"] * 3
    assert all(row["tokens_per_second"] > 0 and row["against_before"] is None for row in first["results"])
    assert first["before"] is None and {"python", "numpy"} <= set(first["machine"]["versions"])
    assert second["before"]["when"] == first["when"]
    for row, before in zip(second["results"], first["results"], strict=True):
        assert row["against_before"] == pytest.approx(row["median_seconds"] / before["median_seconds"])
    assert sorted(map(str, bench.folder().iterdir())) == [first["kept"], second["kept"]]


def test_a_step_is_told_as_a_share_of_the_peak(fresh_cache: Path) -> None:
    if reason := backends.get("torch").missing():
        pytest.skip(reason)
    found = run_quickly("step", "--preset", "smoke", "--backends", "torch")
    product, numpy, step = found["results"]
    assert [row["name"] for row in (product, numpy, step)] == ["product[torch]", "numpy", "step[torch]"]
    assert step["tokens"] == presets.load("smoke").total_batch_size
    best = max(row["share_of_peak"] for row in (product, numpy) if row["device"] == step["device"])
    assert 0 < best <= 1 and step["share_of_peak"] > 0
    assert found["machine"]["versions"].keys() >= {"torch", "python"} and found["machine"]["preset"]["name"] == "smoke"
    assert len(found["commit"]["id"]) >= 7


def test_a_device_that_is_not_here_is_told_and_nothing_is_kept(fresh_cache: Path) -> None:
    if reason := backends.get("torch").missing():
        pytest.skip(reason)
    told = call("bench", "scoring", "--backends", "torch", "--device", "abacus", "--quick", code=2).err
    assert "autoresearch: device 'abacus' is not here" in told and "Traceback" not in told
    assert not bench.folder().exists()


SUITE = """
import os, time, pathlib, pytest
@pytest.mark.benchmark(group="packing")
def test_one(benchmark):
    {body}
"""


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file for a benchmark that stands in for all suites."""
    folder = tmp_path / "tree" / "benchmarks"
    folder.mkdir(parents=True)
    (folder.parent / "pytest.ini").write_text("[pytest]\naddopts = -p no:benchmark\n", encoding="utf-8")
    monkeypatch.setattr(bench, "source", lambda: folder)
    return folder / "test_one.py"


def test_a_benchmark_that_fails_is_told_with_its_reason_and_nothing_is_kept(suite: Path, fresh_cache: Path) -> None:
    suite.write_text(SUITE.format(body="assert 2 + 2 == 5, 'no luck'"), encoding="utf-8")
    told = call("bench", "packing", "--quick", code=2).err
    assert "autoresearch: a benchmark failed" in told and "no luck" in told
    assert not bench.folder().exists()


@pytest.mark.timeout(60)
def test_ctrl_c_leaves_no_process_and_no_file(suite: Path, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = f"print('\\n{bench.PROGRESS}', os.getpid(), flush=True); time.sleep(600)"
    suite.write_text(SUITE.format(body=body), encoding="utf-8")
    heard: list[str] = []

    def interrupted(line: str) -> None:
        heard.append(line)
        if line.startswith(bench.PROGRESS):
            raise KeyboardInterrupt

    monkeypatch.setattr("core.cli.render.terminal.notice", interrupted)
    call("bench", "packing", code=130)
    _, progress, last = heard
    assert last.startswith("interrupted; the same command starts again")
    assert not psutil.pid_exists(int(progress.split()[-1]))
    assert not bench.folder().exists()


@pytest.mark.timeout(60)
def test_what_ended_before_ctrl_c_is_kept_and_shown(fresh_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []

    def interrupted(line: str) -> None:
        heard.append(line)
        if "(2 of 3, about " in line:
            raise KeyboardInterrupt

    monkeypatch.setattr("core.cli.render.terminal.notice", interrupted)
    answer = call("bench", "packing", "--quick", code=130)
    estimate, first, second, kept, last = heard
    assert estimate.startswith("about ") and estimate.endswith(
        " in all if little else runs, by times of another machine"
    )
    assert first.startswith(f"{bench.PROGRESS}packing[") and first.endswith(" (1 of 3)")
    assert second.endswith(" left)")
    (path,) = bench.folder().iterdir()
    assert kept == f"kept in {path}: the benchmarks that ended, 1 of them"
    assert last == "interrupted; the same command starts again"
    (result,) = bench.read(path).results
    assert result.suite == "packing" and result.rounds > 0
    assert result.name in answer.err


def test_a_run_is_held_against_one_that_has_all_that_it_has(fresh_cache: Path) -> None:
    whole = document()
    whole["benchmarks"].append({**whole["benchmarks"][0], "name": "test_b"})
    first = bench.keep(whole, "cpu")
    bench.keep(document(), "cpu")
    found = bench.last_like(bench.parse(whole), print)
    assert found is not None and len(found.results) == 2 == len(bench.read(first).results)


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "no suite 'nonsense': there are peak, step,"),
        (["step", "--backends", "numpy"], "backend 'numpy' has no model and so no steps"),
        (["packing", "--backends", "tensorflow"], "no backend 'tensorflow'"),
        (["packing", "--preset", "nonsense"], "there is no preset 'nonsense'"),
        (["packing", "--against", "nowhere.json"], "nowhere.json is no run of autoresearch bench"),
        (["packing", "--against", "other.json"], "other.json is no run of autoresearch bench"),
    ],
)
def test_mistakes_are_told_before_anything_runs(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "measure", lambda *_: pytest.fail("something ran"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.json").write_text('{"rows": []}', encoding="utf-8")
    assert said in call("bench", *arguments, code=2).err


def test_a_run_of_another_machine_is_compared_with_a_warning(
    fresh_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "measure", lambda *_: iter([document(median=3.0)]))
    other = tmp_path / "other.json"
    other.write_text(json.dumps(document(median=1.0, cores=64)), encoding="utf-8")
    answer = call("bench", "packing", "--against", other)
    assert f"{other} is of another machine or preset" in answer.err
    assert "3.00x slower" in answer.out


def test_an_installation_without_the_suites_says_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "__file__", str(tmp_path / "site-packages" / "core" / "measure" / "bench.py"))
    assert "the benchmarks come with the source tree" in call("bench", code=2).err
    assert "packing" in call("bench", "--list").out
    assert list(call("bench", "--list", "--json").json) == list(bench.SUITES)


def test_an_installation_without_what_runs_the_suites_says_how_to_add_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "find_spec", lambda name: None if name == "pytest_benchmark" else object())
    told = call("bench", code=2).err
    assert "pytest_benchmark is not installed" in told and install.command("dev") in told
