"""`autoresearch compare`: rows of equal yardsticks, ranked, of real trials and of finished records."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from pathlib import Path
from statistics import NormalDist
from typing import Any

import pytest
from campaigns import YARDSTICK, ScriptedAgent, a_campaign, a_trial, trainer
from command import call
from rich.console import Console

import backends
import presets
from core.cli import resolve
from core.cli.compare import table
from core.measure import compare, saved
from core.measure.compare import Entry, Scored
from core.records import Budget, Preset, Trial, UserError, to_json
from core.system import accelerators
from core.system.accelerators import Accelerator, Kind
from core.trial import probe as probing

SMALL = ["--set", "score_bytes=8000", "--set", "peak_tflops=0.001", "--preset", "numpy"]


def entry(name: str, *scores: float | None) -> Entry:
    trials = tuple(
        a_trial(
            val_bpb=score, seed=seed, verdict="crash" if score is None else "scored", reason="" if score else "broke"
        )
        for seed, score in enumerate(scores, 1)
    )
    return Entry(name=name, trials=trials)


# Real trials


def test_rows_have_the_keys_of_train_and_one_yardstick(corpus_folder: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    corpus = f"folder:{corpus_folder}"
    options = ["--corpus", corpus, *SMALL]
    answer = call("compare", *options, "--backends", "numpy", "--seeds", "3,4", "--out", kept, "--json")
    (row,) = answer.json
    assert set(row) >= {field.name for field in dataclasses.fields(Trial)}
    assert (row["name"], row["seeds"], row["corpus"]) == ("numpy", [3, 4], corpus)
    scores = [trial["val_bpb"] for trial in row["trials"]]
    assert row["val_bpb"] == pytest.approx(sum(scores) / 2)
    assert row["val_bpb_spread"] == pytest.approx(max(scores) - min(scores))
    assert row["overhead_seconds"] > 0
    assert (kept / "compare.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in sorted((kept / "trials").iterdir())] == ["01-numpy-numpy-3", "02-numpy-numpy-4"]
    # What was kept can be compared again, and by itself.
    again = call("compare", kept, "--json").json
    assert again == [row]
    (curves,) = [one.curves for one in saved.read([kept])]
    assert [len(curve) > 1 for curve in curves] == [True, True], "they lie beside the rows"
    call("compare", kept, "--out", tmp_path / "again")
    assert saved.read([tmp_path / "again"]) == saved.read([kept])
    assert "is not empty" in call("compare", kept, "--out", kept, code=2).err
    lone = call("compare", kept / "trials" / "01-numpy-numpy-3", "--json").json
    assert (lone[0]["val_bpb"], lone[0]["val_bpb_spread"]) == (scores[0], None)
    assert "only numpy has a score" in call("compare", kept).out


def test_two_presets_of_equal_yardsticks_are_ranked(corpus_folder: Path, tmp_path: Path) -> None:
    text = call("presets", "numpy", "--set", f"corpus=folder:{corpus_folder}").out
    text = text.replace("score_bytes = 50000", "score_bytes = 8000")
    (tmp_path / "narrow.toml").write_text(text.replace("depth = 2", "depth = 1"), encoding="utf-8")
    (tmp_path / "wide.toml").write_text(text, encoding="utf-8")
    both = f"{tmp_path / 'narrow.toml'},{tmp_path / 'wide.toml'}"
    answer = call("compare", "--presets", both, "--seeds", "1", "--json")
    assert [row["preset"] for row in answer.json] == ["wide", "narrow"]
    assert answer.json[0]["val_bpb"] < answer.json[1]["val_bpb"]


def test_unequal_yardsticks_are_refused_before_anything_runs(
    corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def must_not(*values: object, **named: object) -> Trial:
        raise AssertionError("a trial ran")

    monkeypatch.setattr("core.cli.resolve.run_with_bar", must_not)
    for name, size in (("short", 4000), ("long", 9000)):
        preset = presets.load("numpy", {"corpus": f"folder:{corpus_folder}", "score_bytes": str(size)})
        (tmp_path / f"{name}.toml").write_text(presets.dump(preset), encoding="utf-8")
    both = f"{tmp_path / 'short.toml'},{tmp_path / 'long.toml'}"
    told = call("compare", "--presets", both, code=2).err
    assert "how much of it is scored" in told and "--set score_bytes=4000" in told
    assert "the corpus" not in told.split("What differs is", 1)[1].split(";", 1)[0]


def test_a_trainer_that_fails_is_a_row_and_status_1(corpus_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "core.trainer.reference.reference_trainer", lambda preset: "def main():\n    raise OSError('no luck')\n"
    )
    answer = call(
        "compare",
        "--corpus",
        f"folder:{corpus_folder}",
        *SMALL,
        "--backends",
        "numpy",
        "--seeds",
        "1",
        "--json",
        code=1,
    )
    (row,) = answer.json
    assert (row["verdict"], row["val_bpb"]) == ("crash", None)
    assert "no luck" in row["reason"]


def test_wall_leaves_for_training_what_start_up_does_not_take() -> None:
    budgets: list[Budget] = []

    def run_one(preset: Preset, budget: Budget, seed: int, title: str) -> tuple[Trial, compare.Curve]:
        budgets.append(budget)
        return a_trial(startup_seconds=9.0 if len(budgets) == 1 else 3.5), []

    assert compare.within_wall(presets.load("cpu"), 60.0, run_one) == Budget(seconds=56.5)
    assert budgets == [Budget(steps=2), Budget(steps=2)]
    with pytest.raises(UserError, match="leaves no time of --wall 4"):
        compare.within_wall(presets.load("cpu"), 4.0, run_one)


def test_trials_take_turns_seed_by_seed() -> None:
    assert list(compare.interleaved({"a": [1, 2], "b": [1, 2]})) == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]


# Which backends


def test_every_installed_backend_is_taken_but_the_one_that_is_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = {"mlx": "no mlx", "jax": None, "torch": None, "numpy": None}
    for name in backends.names():
        monkeypatch.setattr(backends.get(name), "missing", lambda name=name: lacking[name])
    preset = dataclasses.replace(
        presets.load("cpu"), device="cuda", constants={"COMPILE": "inductor", "MATRIX_LR": 0.1}
    )
    monkeypatch.setattr(probing, "probe", lambda backend, device: {"device": device})
    told: list[str] = []
    sides = compare.of_backends(preset, None, None, told.append)
    assert list(sides) == ["jax", "torch"]
    assert sides["torch"] == preset
    assert (sides["jax"].device, sides["jax"].constants) == ("cuda", {"MATRIX_LR": 0.1})
    assert told == ["jax: without COMPILE, which its trainer does not have"]
    assert compare.of_backends(presets.load("cpu"), ["jax"], None, told.append)["jax"].device == "cpu"
    with pytest.raises(UserError, match="'mlx' can't run here: no mlx"):
        compare.of_backends(preset, ["torch", "mlx"], None, told.append)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """Every backend is installed and finds these devices."""
    there = {"torch": {"cuda", "mps"}, "jax": {"cuda", "rocm"}, "mlx": {"gpu"}, "numpy": {"cpu"}}
    for name in backends.names():
        monkeypatch.setattr(backends.get(name), "missing", lambda: None)

    def probe(backend: str, device: str) -> dict[str, str]:
        return {} if device.partition(":")[0] in there[backend] else {"error": f"no {device} for {backend}"}

    monkeypatch.setattr(probing, "probe", probe)
    monkeypatch.setattr(accelerators, "accelerators", tuple)
    return there


@pytest.mark.parametrize(
    ("preset", "here", "devices", "left_out"),
    [
        ("m4-max", (), {"mlx": "gpu", "torch": "mps"}, "jax"),
        ("h100", (), {"torch": "cuda", "jax": "cuda"}, "mlx"),
        ("mi300x", ("rocm",), {"torch": "cuda", "jax": "rocm"}, "mlx"),
    ],
)
@pytest.mark.usefixtures("installed")
def test_a_device_is_the_same_one_on_every_backend(
    preset: str, here: tuple[Kind, ...], devices: dict[str, str], left_out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [Accelerator(name="x", kind=kind, memory_gb=1, free_gb=None, driver="") for kind in here]
    monkeypatch.setattr(accelerators, "accelerators", lambda: found)
    told: list[str] = []
    sides = compare.of_backends(presets.load(preset), None, None, told.append)
    assert {name: side.device for name, side in sides.items()} == devices
    assert any(line.startswith(f"without {left_out}: backend '{left_out}' can't use") for line in told)


def test_a_device_that_is_not_here_is_told_before_anything_runs(installed: dict[str, set[str]]) -> None:
    m4_max, told = presets.load("m4-max"), list[str]()
    installed["torch"].clear()
    assert list(compare.of_backends(m4_max, None, None, told.append)) == ["mlx"], "torch has no mps, jax drives none"
    with pytest.raises(UserError, match=r"no mps for torch .preset m4-max takes torch on mps."):
        compare.of_backends(m4_max, ["mlx", "torch"], None, told.append)
    installed["mlx"].clear()
    with pytest.raises(UserError, match=r"no gpu for mlx .preset m4-max takes mlx on gpu."):
        compare.of_backends(m4_max, None, None, told.append)
    with pytest.raises(UserError, match="no gpu for mlx"):
        compare.named_presets(["cpu", "m4-max"], {})


@pytest.mark.parametrize("command", ["train", "run night", "compare --backends numpy"])
def test_no_data_is_prepared_for_a_device_that_is_not_here(
    command: str, fresh_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def must_not(*values: object, **named: object) -> None:
        raise AssertionError("data was prepared")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("core.data.prepare", must_not)
    told = call(*command.split(), "--preset", "numpy", "--device", "cuda", code=2).err
    assert "(preset numpy takes numpy on cuda)" in told
    assert not (tmp_path / "night").exists(), "and no campaign is made"


def test_what_ran_before_a_side_that_cannot_is_shown(corpus_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = resolve.run_with_bar

    def second_fails(trainer: str, preset: Preset, **named: Any) -> Trial:
        if named["seed"] == 2:
            raise UserError("the disk is full")
        return run(trainer, preset, **named)

    monkeypatch.setattr(resolve, "run_with_bar", second_fails)
    options = ["--corpus", f"folder:{corpus_folder}", *SMALL, "--backends", "numpy", "--seeds", "1,2"]
    told = call("compare", *options, code=2).err
    assert "the disk is full" in told
    assert re.search(r"numpy +[0-9]\.[0-9]+", told), "the row of seed 1"


def test_what_a_backends_trainer_lacks_is_left_out_and_told(corpus_folder: Path) -> None:
    options = ["--preset", "smoke", "--corpus", f"folder:{corpus_folder}", "--seeds", "1", "--backends", "numpy"]
    answer = call("compare", *options, "--set", "score_bytes=8000", "--json")
    assert answer.json[0]["verdict"] == "scored"
    assert "numpy: without ASPECT_RATIO, WINDOW_PATTERN, HEAD_DIM, which its trainer does not have" in answer.err


# Rows


def test_a_row_is_the_mean_of_scores_and_the_median_of_the_rest() -> None:
    trials = tuple(
        a_trial(val_bpb=score, seed=seed, steps=steps, wall_seconds=wall, train_seconds=1.0)
        for seed, score, steps, wall in ((1, 1.0, 10, 3.0), (2, 1.5, 30, 2.0), (3, 1.1, 20, 9.0))
    )
    row = Entry(name="x", trials=trials).row()
    assert row["val_bpb"] == pytest.approx(1.2)
    assert row["val_bpb_spread"] == pytest.approx(0.5)
    assert (row["steps"], row["overhead_seconds"], row["seeds"]) == (20, 2.0, [1, 2, 3])


def test_one_failed_seed_takes_the_score_away() -> None:
    mixed = entry("mixed", 1.0, None)
    assert (mixed.val_bpb, mixed.spread, mixed.row()["verdict"], mixed.row()["reason"]) == (
        None,
        None,
        "crash",
        "broke",
    )
    assert [one.name for one in compare.ranked([mixed, entry("b", 1.2), entry("a", 1.1)])] == ["a", "b", "mixed"]


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([entry("a", 1.0, 1.01), entry("b", 1.5, 1.52)], "a is 0.5050 bpb below b: more than the spread"),
        ([entry("a", 1.0, 1.2), entry("b", 1.1, 1.3)], "no more than the spread of its seeds (0.2000)"),
        ([entry("a", 1.0), entry("b", 1.1)], "with one seed, this may be luck"),
        ([entry("a", None), entry("b", 1.1)], "only b has a score"),
        ([entry("a", None)], "nothing was scored"),
    ],
)
def test_the_conclusion_holds_the_lead_against_the_seeds(entries: list[Entry], said: str) -> None:
    assert said in compare.conclusion(entries)


def test_beliefs_are_compared_by_their_means_and_deviations(tmp_path: Path) -> None:
    trials = (a_trial(val_bpb=1.62), a_trial(val_bpb=1.60, seed=2))
    better = Entry(name="night", trials=trials, belief=NormalDist(1.65, 0.003))
    other = Entry(name="day", trials=(a_trial(val_bpb=1.64),), belief=NormalDist(1.66, 0.004))
    assert [entry.name for entry in compare.ranked([other, better])] == ["night", "day"]
    assert compare.conclusion([other, better]) == "night is 0.0100 bpb below day, 98 % likely to be truly better"
    assert "spread" in compare.conclusion([better, Entry(name="lone", trials=trials)])
    shown = io.StringIO()
    Console(file=shown, width=80).print(table([better, other], 80))
    assert "1.6500 +- 0.0059" in shown.getvalue() and "1.6600 +- 0.0078" in shown.getvalue()
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([better.row()]), encoding="utf-8")
    (again,) = saved.read([path])
    assert (again.val_bpb, again.deviation) == (1.65, 0.003)


# Yardsticks


@pytest.mark.parametrize(
    ("other", "differs", "mend"),
    [
        (
            ("climbmix", 40_000_000),
            "the corpus and how much of it is scored",
            "--corpus apidocs --set score_bytes=400000",
        ),
        (("climbmix", 400_000), "the corpus", "--corpus apidocs"),
        (("apidocs", 20_000), "how much of it is scored", "--set score_bytes=20000"),
        (("apidocs", 400_000), "the text of the corpus, or the version of the scoring", "--corpus apidocs"),
    ],
)
def test_what_differs_is_named_with_its_mend(other: tuple[str, int], differs: str, mend: str) -> None:
    first = Scored(name="cpu", corpus="apidocs", bytes=400_000, yardstick="a")
    second = Scored(name="h100", corpus=other[0], bytes=other[1], yardstick="b")
    with pytest.raises(UserError) as told:
        compare.check_yardsticks([first, first, second])
    assert f"What differs is {differs}; trials with {mend}" in str(told.value)
    compare.check_yardsticks([first, dataclasses.replace(second, yardstick="a")])


# Finished records


def test_campaigns_are_compared_by_their_champions(tmp_path: Path) -> None:
    for name, score in (("one", 2.0), ("two", 1.8)):
        with a_campaign(tmp_path / name, score) as campaign:
            campaign.run(ScriptedAgent([trainer(score - 0.1), trainer(3.0)]), experiments=2)
    answer = call("compare", tmp_path / "one", tmp_path / "two", "--json")
    assert [(row["name"], round(row["val_bpb"], 3)) for row in answer.json] == [("two (1)", 1.7), ("one (1)", 1.9)]
    assert "two (1) is 0.2000 bpb below one (1)" in call("compare", tmp_path / "one", tmp_path / "two").out


def test_files_of_records_are_grouped_by_all_but_the_seed(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    records = [a_trial(val_bpb=1.0, seed=1), a_trial(val_bpb=1.2, seed=2), a_trial(val_bpb=1.4, backend="torch")]
    path.write_text("\n".join(json.dumps(to_json(record)) for record in records) + "\n", encoding="utf-8")
    found = {one.name: one.val_bpb for one in saved.read([path])}
    assert found == {"test on numpy": pytest.approx(1.1), "test on torch": 1.4}
    twice = saved.read([path, path])
    assert [one.name for one in twice][:2] == ["test on numpy #1", "test on torch #1"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere: no such file"),
        (["empty"], "is no campaign and holds no trial.json"),
        (["text.txt"], "holds no JSON"),
        (["text.txt", "--backends", "numpy"], "leave out --backends"),
        (["text.txt", "--corpus", "apidocs", "--set", "depth=3"], "leave out --set, --corpus"),
        (["text.txt", "--budget", "9", "--wall", "9", "--seeds", "1"], "leave out --budget, --wall, --seeds"),
        (["text.txt", "--device", "cpu"], "leave out --device"),
        (["--presets", "cpu", "--backends", "torch"], "each preset on its own backend"),
        (["--presets", "cpu,nonsense"], "there is no preset 'nonsense'"),
        (["--backends", "tensorflow"], "no backend 'tensorflow'"),
        (["--wall", "9", "--budget", "9"], "one budget"),
        (["--seeds", "1,x"], "whole numbers"),
        (["--seeds", "1,1"], "different whole numbers"),
        (["--out", "occupied"], "is not empty"),
    ],
)
def test_mistakes_are_told(arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("no record", encoding="utf-8")
    (tmp_path / "occupied").mkdir()
    (tmp_path / "occupied" / "thing").write_text("mine", encoding="utf-8")
    assert said in call("compare", *arguments, code=2).err


GOOD = to_json(a_trial())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "holds no record"),
        ([{"name": "x", "trials": []}], "a row has a list of at least one trial, not []"),
        ([{"name": "x", "trials": 3}], "a row has a list of at least one trial, not 3"),
        ([{"trials": ["low"]}], "a record is a JSON object, not 'low'"),
        (3, "a record is a JSON object, not 3"),
        ({**GOOD, "val_bpb": "low"}, "val_bpb of a record is float or null, not 'low'"),
        ({**GOOD, "steps": None}, "steps of a record is int, not None"),
        ({**GOOD, "yardstick": ["a"]}, "yardstick of a record is str"),
        ({**GOOD, "audit": "fine"}, "bad.json: "),
        ({**GOOD, "colour": 1}, "bad.json: Trial: unknown field colour"),
        (
            {"name": "x", "trials": [GOOD, {**GOOD, "yardstick": "f" * 64}]},
            "row 'x': scores with different yardsticks can't be compared",
        ),
    ],
)
def test_bad_records_are_told(content: object, said: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    told = call("compare", path, code=2).err
    assert "bad.json" in told and said in told


def test_unequal_records_are_refused(tmp_path: Path) -> None:
    for name, yardstick in (("a", YARDSTICK), ("b", "f" * 64)):
        record = a_trial(yardstick=yardstick, corpus=name)
        (tmp_path / f"{name}.json").write_text(json.dumps(to_json(record)), encoding="utf-8")
    told = call("compare", tmp_path / "a.json", tmp_path / "b.json", code=2).err
    assert "What differs is the corpus; trials with --corpus a on every side can be" in told


@pytest.mark.long
def test_three_backends_on_one_yardstick(fresh_cache: Path, tmp_path: Path) -> None:
    wanted = ["torch", "jax", "mlx"]
    for name in wanted:
        if reason := backends.get(name).missing():
            pytest.skip(reason)
    kept = tmp_path / "kept"
    rows = call("compare", "--preset", "smoke", "--backends", ",".join(wanted), "--out", kept, "--json").json
    assert sorted(row["backend"] for row in rows) == sorted(wanted)
    assert len({row["yardstick"] for row in rows}) == 1
    assert all(row["verdict"] == "scored" and row["seeds"] == [1, 2] for row in rows)
    assert len({row["parameters"] for row in rows}) == 1
