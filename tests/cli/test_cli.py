"""The `autoresearch` command: what a person types and what a program reads, with real trials of the numpy backend."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import call
from support import RESTING, reference_trainer

import presets
from core.campaign.campaign import Campaign
from core.cli.run import limits
from core.records import Trial
from core.store import program

COMMAND = [sys.executable, "-m", "core.cli"]
STATUS_KEYS = [
    "schema_version",
    "baseline_bpb",
    "champion_bpb",
    "champion_commit",
    "experiments",
    "kept",
    "discarded",
    "crashed",
    "invalid",
    "experiments_per_hour",
    "overhead_fraction",
    "yardstick",
    "confirmation",
    "model",
    "activity",
    "stops",
    "kept_within_spread",
    "stopped",
    "disturbed",
    "disturbed_trials",
    "baseline_deviation",
    "champion_deviation",
]


@pytest.fixture(scope="session")
def options(corpus_folder: Path) -> list[str]:
    """A preset whose trials are short and whose corpus is made here."""
    settings = ["score_bytes=8000", "peak_tflops=0.001", "seeds=[1]"]  # a peak that is given isn't measured
    return ["--preset", "numpy", "--corpus", f"folder:{corpus_folder}", *(f"--set={setting}" for setting in settings)]


@pytest.fixture(scope="session")
def night(tmp_path_factory: pytest.TempPathFactory, options: list[str], brief: list[str]) -> Path:
    """A campaign with a baseline of two seeds and three experiments, not to be changed; what was printed beside it."""
    root = tmp_path_factory.mktemp("campaigns") / "night"
    call("init", root, *options, *brief, "--set", "seeds=[1, 2]")
    answer = call("run", root, "--experiments", 3)
    (root.parent / "out.txt").write_text(answer.out, encoding="utf-8")
    (root.parent / "err.txt").write_text(answer.err, encoding="utf-8")
    return root


@pytest.fixture
def fresh(tmp_path: Path, options: list[str], brief: list[str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A campaign that has run nothing yet, with its folder as the current one."""
    root = tmp_path / "fresh"
    call("init", root, *options, *brief)
    monkeypatch.chdir(root)
    return root


def edit(root: Path, old: str, new: str) -> None:
    path = root / "train.py"
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")


# Help and mistakes


def test_help_has_examples_and_every_command() -> None:
    text = call("--help").out
    for command in "init prepare train run try status log show confirm presets export sample".split():
        assert f"  {command} " in text
        assert "Usage: autoresearch" in call(command, "--help").out
    assert "autoresearch run night --preset cpu --hours 8" in text
    assert call("--version").out.strip().count(".") == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "--preset", "smok"], "did you mean smoke"),
        (["train", "--preset", "numpy", "--set", "depht=2"], "did you mean depth"),
        (["train", "--preset", "numpy", "--set", "depth"], "KEY=VALUE"),
        (["train", "--preset", "numpy", "--set", "NO_SUCH=2"], "no module-level constant NO_SUCH"),
        (["train", "--preset", "numpy", "--set", "SMOOTHING=much"], "SMOOTHING"),
        (
            ["train", "--preset", "numpy", "--set", "SMOTHING=2"],
            "train.py has no module-level constant SMOTHING: did you mean SMOOTHING?",
        ),
        (["train", "--preset", "numpy", "--corpus", "apidoc"], "no corpus 'apidoc': did you mean apidocs?"),
        (["train", "--preset", "numpy", "--set", "backend=nmpy"], "no backend 'nmpy': did you mean numpy?"),
        (["train", "--preset", "no such"], "more; or name a .toml file of your own"),
        (["run", "night", "--preset", "numpy", "--agent", "serch"], "no agent 'serch': did you mean search?"),
        (
            ["run", "night", "--agent", "api", "--provider", "antropic"],
            "no provider 'antropic': did you mean anthropic?",
        ),
        (["bench", "stepp"], "no suite 'stepp': did you mean step?"),
        (["bench", "step", "--backends", "trch"], "no backend 'trch': did you mean torch?"),
        (["train", "--preset", "numpy", "--budget", "3", "--steps", "3"], "one budget"),
        (["train", "--preset", "numpy", "--steps", "0"], "above 0"),
        (["train", "--preset", "numpy", "--budget", "0.01"], "too short"),
        (["train", "--preset", "numpy", "--trainer", "no-such.py"], "no-such.py: no such file"),
        (["status"], "with: autoresearch init"),
        (["run"], "name a folder"),
        (["show", "0"], "autoresearch init"),
        (["sample", "--model", "no-such-model"], "autoresearch export"),
        (["sample", "--temperature", "-1"], "--temperature"),
        (["prepare", "--preset", "numpy", "--set", "vocabulary=257"], "got 257"),
    ],
)
def test_a_mistake_is_one_message_and_status_2(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, corpus_folder: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    if "numpy" in arguments and "--corpus" not in arguments:
        arguments = [*arguments, "--corpus", f"folder:{corpus_folder}"]
    answer = call(*arguments, code=2)
    message = answer.err.rpartition("autoresearch: ")[2]  # a corpus may have been prepared before
    assert said in message
    assert message.count("\n") == 1
    assert answer.out == ""


@pytest.mark.parametrize("arguments", [["no-such-command"], ["train", "--no-such-option"], ["try"]])
def test_what_the_parser_refuses_is_status_2_too(arguments: list[str]) -> None:
    assert call(*arguments, code=2).err != ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["stats"], "Did you mean 'status'?"), (["run", "--agnt", "api"], "(Possible options: --agent, --agent-set)")],
)
def test_a_command_and_an_option_of_another_spelling_are_suggested(arguments: list[str], said: str) -> None:
    assert said in call(*arguments, code=2).err


@pytest.mark.parametrize(
    ("file", "text", "arguments", "said"),
    [
        ("mine.py", "def main(:\n", ["train", "--trainer", "mine.py"], "mine.py:1: syntax error"),
        ("mine.py", "A = f()  # tune: int 1 .. 2\n", ["train", "--trainer", "mine.py"], "mine.py:1: "),
        ("mine.py", "def main(:\n", ["init", "new", "--trainer", "mine.py"], "mine.py:1: syntax error"),
        ("mine.md", "---\nhour: 3\n---\n", ["init", "new", "--program", "mine.md"], "mine.md:2: unknown limit 'hour'"),
        ("mine.toml", 'base = "numpy"\ndepth = "two"\n', ["train"], "mine.toml: depth is a whole number, not 'two'"),
        ("mine.toml", 'base = "numpy"\ndepth = 0\n', ["train"], "mine.toml: depth is a finite number above 0, not 0"),
        ("mine.toml", 'base = "numpy"\ndpth = 2\n', ["train"], "mine.toml: unknown field dpth: did you mean depth?"),
        ("mine.toml", "depth = 2\n", ["train"], "mine.toml: no value for backend"),
    ],
)
def test_an_error_in_a_file_names_the_file(
    file: str, text: str, arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(file).write_text(text, encoding="utf-8")
    message = call(*arguments, "--preset", file if file.endswith(".toml") else "numpy", code=2).err
    assert said in message
    assert "train.py" not in message
    assert not Path("new").exists()


def test_an_unknown_preset_in_a_process_of_its_own() -> None:
    done = subprocess.run([*COMMAND, "train", "--preset", "h1000"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [done.stderr.strip()]
    assert "did you mean h100" in done.stderr


# Trials by themselves


def test_train_prints_its_record_as_the_last_line(options: list[str]) -> None:
    answer = call("train", *options, "--json")
    record = answer.last
    assert set(record) == {"schema_version", *(field.name for field in dataclasses.fields(Trial))}
    assert (record["verdict"], record["preset"], record["backend"], record["seed"]) == ("scored", "numpy", "numpy", 1)
    assert record["scored_bytes"] >= 8000
    assert 0 < record["train_seconds"] < record["wall_seconds"]
    assert answer.out.count("\n") == 1
    assert "scoring" in answer.err


def test_steps_repeat_exactly_and_a_seed_makes_the_difference(options: list[str], tmp_path: Path) -> None:
    arguments = ["train", *options, "--steps", 20, "--json"]
    first, again, other = call(*arguments).last, call(*arguments).last, call(*arguments, "--seed", 2).last
    assert first["steps"] == 20
    assert first["weights_sha256"] == again["weights_sha256"]
    assert first["val_bpb"] == again["val_bpb"]
    assert other["weights_sha256"] != first["weights_sha256"]


def test_a_failed_trial_is_status_1_and_shows_its_last_output(options: list[str], tmp_path: Path) -> None:
    trainer = tmp_path / "train.py"
    trainer.write_text("def main():\n    print('so far')\n    raise RuntimeError('no more')\n", encoding="utf-8")
    answer = call("train", *options, "--trainer", trainer, "--json", "--out", tmp_path / "kept", code=1)
    assert answer.last["verdict"] == "crash"
    assert "RuntimeError" in answer.last["reason"]
    assert "so far" in answer.err
    assert "so far" in (tmp_path / "kept" / "output.txt").read_text(encoding="utf-8")


def test_a_folder_with_something_in_it_is_not_written_to(options: list[str], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("ten years", encoding="utf-8")
    assert "has something in it" in call("train", *options, "--steps", "2", "--out", tmp_path / "mine", code=2).err
    assert (tmp_path / "mine" / "thesis.tex").read_text(encoding="utf-8") == "ten years"


def test_a_trainer_that_is_no_python_is_a_mistake(options: list[str], tmp_path: Path) -> None:
    trainer = tmp_path / "train.py"
    trainer.write_text("def main(:\n", encoding="utf-8")
    assert "train.py:1: syntax error" in call("train", *options, "--trainer", trainer, code=2).err


def test_a_given_trainer_is_changed_only_where_it_was_asked(options: list[str], tmp_path: Path) -> None:
    trainer = tmp_path / "train.py"
    trainer.write_text(
        "import sys\nimport numpy as np\nfrom core.trial import join\nDEPTH = 7\nWIDTH = 3\n"
        "def main():\n    print('numbers', DEPTH, WIDTH)\n    sys.exit('enough')\n",
        encoding="utf-8",
    )
    answer = call("train", *options, "--trainer", trainer, "--set", "WIDTH=5", code=1)
    assert "numbers 7 5" in answer.err
    assert "numbers 9 3" in call("train", *options, "--trainer", trainer, "--set", "depth=9", code=1).err


def test_train_shows_a_person_its_numbers(options: list[str]) -> None:
    out = call("train", *options, "--steps", 3).out
    for part in ("val_bpb", "3 steps of 64 x 64", "parameters", "counts (nothing to choose)"):
        assert part in out


def test_prepare_tells_what_is_there(options: list[str]) -> None:
    told = call("prepare", *options[:4], "--json").json
    assert told["vocabulary"] == 256
    assert set(told["splits"]) == {"train", "val", "test"}
    assert sum(split["documents"] for split in told["splits"].values()) == 300
    assert len(told["yardstick"]) == 64
    assert "300" not in told
    assert "ready" in call("prepare", *options[:4]).out


def test_presets_lists_and_prints_what_can_be_saved(tmp_path: Path) -> None:
    table = call("presets", "--all").out
    assert all(name in table for name in presets.names())
    short = call("presets").out
    first = [name for name in presets.names() if f"\n {name} " in short]
    assert {"h100", "rtx4090", "m4-max", "cpu", "numpy"} <= set(first)
    assert f"{len(presets.names()) - len(first)} more (" in short
    listed = {entry["name"]: entry for entry in call("presets", "--json").json}
    assert list(listed) == presets.names()
    assert listed["numpy"]["missing"] is None
    for name, entry in listed.items():
        origins = [bool(entry["measured"]), entry["derived"], bool(entry["exempt"])]
        assert sum(origins) == 1, f"{name} is one of measured, derived and exempt: {origins}"
        assert entry["warnings"] == []
    assert listed["cpu"]["measured"].startswith("2026-")
    assert listed["rtx4090"]["estimate"]["steps"] >= 300
    assert "warnings" in call("presets", "h100", "--set", "depth=24", "--json").json
    assert "# warning: " in call("presets", "h100", "--set", "depth=24").out
    assert "# rtx4090: derived, for " in call("presets", "rtx4090").out
    changed = call("presets", "cpu", "--set", "depth=6", "--set", "MATRIX_LR=0.5")
    assert changed.out.startswith("# cpu: changed: depth = 6, MATRIX_LR = 0.5; nothing is measured with that")
    assert call("presets", "cpu", "--set", "depth=6", "--json").json["measured"] is None
    assert "measured 2026" in call("presets", "cpu", "--set", "depth=4").out
    path = tmp_path / "mine.toml"
    path.write_text(changed.out, encoding="utf-8")
    again = call("presets", path, "--json").json
    assert (again["name"], again["depth"], again["constants"]) == (
        "mine",
        6,
        {**presets.load("cpu").constants, "MATRIX_LR": 0.5},
    )


# Campaigns


def test_a_run_ends_with_all_that_a_person_wants_to_see(night: Path) -> None:
    out, err = ((night.parent / name).read_text(encoding="utf-8") for name in ("out.txt", "err.txt"))
    rows, summary = out.split("\n\n", 1)
    assert [line.split()[0] for line in rows.splitlines()] == ["#", "0", "1", "2", "3"]
    for part in (
        "champion",
        "from the baseline's",
        "the true score lies within it with a probability of 95 %",
        f"plot: {night / 'progress.png'}",
    ):
        assert part in summary
    assert ("text before, from the baseline's model (" in summary) == ("text after, from experiment " in summary)
    assert "text after" in summary or "text from experiment 0" in summary
    assert "experiment 3, seed 1: " in err
    assert "3 experiments, the limit" in err
    assert (night / "progress.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_that_kept_something_ends_with_text_before_and_after(tmp_path: Path, options: list[str]) -> None:
    root = tmp_path / "demo"
    call("init", root, *options, "--set", "depth=1")  # counts of single tokens, which pairs surely beat
    train = root / "train.py"
    train.write_text(train.read_text(encoding="utf-8").replace("DEPTH = 1 ", "DEPTH = 2 "), encoding="utf-8")
    assert call("try", root, "-m", "pairs", "--json").json["verdict"] == "keep"
    summary = call("run", root, "--experiments", 0).out
    before, after = (summary.index(f"text {word}, from ") for word in ("before", "after"))
    shown = [summary[at:].splitlines()[1] for at in (before, after)]
    assert before < after and shown[0] != shown[1] and all(text.startswith("The ") for text in shown)
    assert f"autoresearch confirm {root}" in summary


def test_a_copied_campaign_goes_on_and_prints_json_lines(night: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(night, root)
    records = [json.loads(line) for line in call("run", root, "--experiments", 2, "--json").out.splitlines()]
    assert [record["number"] for record in records] == [4, 5]
    scored = [record for record in records if record["val_bpb"] is not None]
    assert all(record["gain"] == record["champion_bpb"] - record["val_bpb"] for record in scored)
    assert call("status", "--dir", root, "--json").json["experiments"] == 5
    assert call("status", "--dir", night, "--json").json["experiments"] == 3
    assert (root / "progress.png").read_bytes() != (night / "progress.png").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--preset", "cpu"], "preset cpu"),
        (["--set", "depth=1"], "depth = 1"),
        (["--budget", "7"], "budget_seconds = 7.0"),
        (["--set", "MATRIX_LR=0.1"], "MATRIX_LR"),
        (["--corpus", "climbmix"], "corpus = climbmix"),
    ],
)
def test_a_frozen_campaign_takes_no_other_numbers(night: Path, arguments: list[str], said: str) -> None:
    before = call("status", "--dir", night, "--json").json
    answer = call("run", night, *arguments, "--experiments", 1, code=2)
    assert "is frozen" in answer.err
    assert said in answer.err
    assert call("status", "--dir", night, "--json").json == before


def test_a_frozen_campaign_goes_on_when_asked_for_what_it_has(night: Path, options: list[str]) -> None:
    answer = call("run", night, *options, "--set", "seeds=[1, 2]", "--budget", 1, "--experiments", 0)
    assert "no experiments were asked for" in answer.err


def test_a_presets_file_is_compared_by_its_content(night: Path, tmp_path: Path) -> None:
    """Whatever its name: an edited file is not the campaign's preset, and an equal one is."""
    frozen = (night / ".git" / "autoresearch" / "preset.toml").read_text(encoding="utf-8")
    same, edited = tmp_path / "mine.toml", tmp_path / "numpy.toml"
    same.write_text(frozen, encoding="utf-8")
    assert "no experiments were asked for" in call("run", night, "--preset", same, "--experiments", 0).err
    edited.write_text(frozen.replace("score_bytes = 8000", "score_bytes = 9000"), encoding="utf-8")
    answer = call("run", night, "--preset", edited, "--experiments", 0, code=2)
    assert "with score_bytes = 9000 (it has 8000) its scores could not be compared" in answer.err


def test_a_campaign_without_an_experiment_is_not_frozen(tmp_path: Path, options: list[str]) -> None:
    root = tmp_path / "night"
    call("init", root, *options)
    answer = call("run", root, *options, "--set", "depth=1", "--budget", 2, "--experiments", 0)
    assert f"{root} has no experiment yet, so it takes depth = 1 (it has 2), budget_seconds = 2.0 (it has" in answer.err
    assert "DEPTH = 1" in (root / "train.py").read_text(encoding="utf-8")
    with Campaign.open(root) as campaign:
        assert campaign.experiment(0).trials[0].budget_seconds == 2.0


def test_a_wrong_device_leaves_no_campaign(tmp_path: Path, options: list[str]) -> None:
    root = tmp_path / "dead"
    assert "device" in call("run", root, *options, "--device", "cuda:9", code=2).err
    assert not root.exists()


def test_an_edit_that_was_not_kept_is_where_try_says(fresh: Path) -> None:
    edit(fresh, "DEPTH = 2", "DEPTH = 1")
    tried = (fresh / "train.py").read_text(encoding="utf-8")
    out = call("try", "-m", "the last token tells nothing").out
    assert out.endswith("what was tried: autoresearch show 1 train.py\n")
    assert call("show", 1, "train.py").out == tried
    (fresh / "train.py").write_text("def main(:\n", encoding="utf-8")
    out = call("try", "-m", "a slip").out
    assert "crash" in out and out.endswith("what was tried: autoresearch show 2 train.py\n")
    assert call("show", 2, "train.py").out == "def main(:\n"


@pytest.mark.parametrize(
    ("front", "options", "said"),
    [
        ("hours: 1:30", {}, "1.5 hours (program.md). Ctrl-C ends it too"),
        ("hours: 8\nexperiments: 9", {"experiments": 0}, "0 experiments (--experiments); 8 hours (program.md). "),
        ("hours: 2", {"hours": 1.0}, "1 hours (--hours). "),
        ("max_cost: $5\nfixed: [DEPTH]", {}, "$5 for a model (program.md); DEPTH fixed (program.md). "),
        ("max_tokens: 2e6", {"max_tokens": 3000000}, "2,000,000 tokens of a model (program.md). "),
        (
            "max_memory: 12 GB\nbpb_per_line: 0.0002",
            {},
            "at most 12,288 MB of memory (program.md); a line of code less is worth 0.0002 bpb (program.md). ",
        ),
        ("", {}, "none in program.md or options; Ctrl-C ends it"),
    ],
)
def test_a_run_says_which_limits_hold(front: str, options: dict[str, float], said: str) -> None:
    given = {name: options.get(name) for name in ("experiments", "hours", "max_cost", "max_tokens")}
    assert limits(program.parse(f"---\n{front}\n---\n"), given).startswith(said)


def test_hours_are_taken_as_people_write_them(night: Path) -> None:
    said = call("run", night, "--hours", "0:30", "--experiments", 0).err
    assert "limits: 0 experiments (--experiments); 0.5 hours (--hours)" in said
    assert "expected hours, as in 8, 0.5 or 1:30, not 'soon'" in call("run", night, "--hours", "soon", code=2).err


def test_an_unknown_agent_is_told(night: Path) -> None:
    assert "search" in call("run", night, "--agent", "serch", code=2).err


def test_status_has_the_keys_that_programs_read(night: Path) -> None:
    status = call("status", "--dir", night, "--json").json
    assert list(status) == STATUS_KEYS
    assert status["experiments"] == 3
    assert status["experiments"] == sum(status[key] for key in ("kept", "discarded", "stopped", "crashed", "invalid"))
    assert status["champion_bpb"] <= status["baseline_bpb"]
    assert 0 < status["overhead_fraction"] < 1
    assert len(status["champion_commit"]) == 40
    assert "3: " in call("status", "--dir", night).out


def test_a_campaign_is_found_from_within(night: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(night / ".git")
    assert call("status", "--json").json["experiments"] == 3


def test_log_lists_for_people_spreadsheets_and_programs(night: Path) -> None:
    lines = call("log", "--dir", night).out.splitlines()
    assert [line.split()[0] for line in lines] == ["#", "0", "1", "2", "3"]
    assert [line.split()[0] for line in call("log", "--dir", night, "--last", 2).out.splitlines()] == ["#", "2", "3"]
    assert len(call("log", "--dir", night, "--last", 99).out.splitlines()) == 5
    table = [line.split("\t") for line in call("log", "--dir", night, "--tsv").out.splitlines()]
    assert table[0] == ["commit", "val_bpb", "memory_gb", "status", "description", "val_bpb_95"]
    assert [len(row) for row in table] == [6] * 5
    records = call("log", "--dir", night, "--json").json
    assert [record["number"] for record in records] == [0, 1, 2, 3]
    assert [record["commit"][:7] for record in records] == [row[0] for row in table[1:]]


def test_show_tells_all_or_one_part(night: Path) -> None:
    whole = call("show", 1, "--dir", night)
    diff = call("show", 1, "diff", "--dir", night).out
    assert diff.startswith("diff --git a/train.py b/train.py")
    changed = [line for line in diff.splitlines() if line.startswith("+") and not line.startswith("+++")]
    assert len(changed) >= 1
    assert all(line in whole.out for line in changed)
    hypothesis = call("show", 1, "hypothesis", "--dir", night).out.strip()
    assert hypothesis in whole.out
    assert "loss in nats" in call("show", 1, "curve", "--dir", night).out
    assert call("show", 0, "train.py", "--dir", night).out.endswith("main()\n")
    assert re.search(r"trial 1, seed \d", call("show", 0, "--dir", night).out)
    record = call("show", 1, "--dir", night, "--json").json
    assert (record["diff"].strip(), record["hypothesis"]) == (diff.strip(), hypothesis)
    assert record["curves"][0][0]["step"] == 1
    assert "no part 'dif': did you mean diff?" in call("show", 1, "dif", "--dir", night, code=2).err
    assert call("show", 99, "--dir", night, code=2).err.startswith("autoresearch: ")


def test_an_exported_model_writes_the_same_text(night: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "model"
    told = call("export", model, "--dir", night, "--json").json
    assert told["files"] == sorted(path.name for path in model.iterdir())
    assert f"experiment {told['experiment']}" in (model / "README.md").read_text(encoding="utf-8")
    arguments = ["--prompt", "The ", "--length", 40, "--seed", 5]
    text = call("sample", "--dir", night, *arguments).out
    assert text.startswith("The ")
    assert len(text) > 20
    monkeypatch.chdir(tmp_path)
    assert call("sample", "--model", "model", *arguments).out == text
    assert call("sample", "--model", "model", *arguments, "--json").json["text"] == text.removeprefix("The ")[:-1]
    assert call("sample", "--model", "model", *arguments[:-1], 6).out != text
    assert "not empty" in call("export", model, "--dir", night, code=2).err


def test_a_campaigns_folder_is_the_first_word_of_what_needs_its_data(night: Path, tmp_path: Path) -> None:
    assert call("sample", night, "--length", 5).out == call("sample", "--dir", night, "--length", 5).out
    call("export", night, tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").exists()
    assert call("train", night, "--steps", 2, "--json").last["verdict"] == "scored"
    assert "ready" in call("prepare", night).out


def test_weights_that_were_deleted_are_told_from_those_never_kept(night: Path, tmp_path: Path) -> None:
    shutil.copytree(night, tmp_path / "copy")
    trials = tmp_path / "copy" / ".git" / "autoresearch" / "experiments" / "0"
    for weights in trials.glob("*/weights.safetensors"):
        weights.unlink()
    answer = call("export", tmp_path / "model", "--dir", tmp_path / "copy", "-e", 0, code=2)
    assert re.search(r"experiment 0 was kept, and its \S+weights.safetensors was deleted since; restore it", answer.err)


def test_what_was_not_kept_has_no_weights(night: Path, tmp_path: Path) -> None:
    discarded = [e["number"] for e in call("log", "--dir", night, "--json").json if e["verdict"] != "keep"]
    assert discarded
    answer = call("export", tmp_path / "model", "--dir", night, "-e", discarded[0], code=2)
    assert "has no weights" in answer.err
    assert not (tmp_path / "model").exists()


def test_init_takes_a_program_a_trainer_and_a_tag(tmp_path: Path, options: list[str]) -> None:
    program, trainer = tmp_path / "mine.md", tmp_path / "mine.py"
    program.write_text("Lower it.\n", encoding="utf-8")
    trainer.write_text("X = 1\n\n\ndef main():\n    pass\n", encoding="utf-8")
    root = tmp_path / "campaign"
    told = call("init", root, *options, "--tag", "wide", "--program", program, "--trainer", trainer, "--json").json
    assert told == {"schema_version": 1, "root": str(root), "branch": "autoresearch/wide", "preset": "numpy"}
    assert (root / "program.md").read_text(encoding="utf-8") == "Lower it.\n"
    assert (root / "train.py").read_bytes() == trainer.read_bytes()
    assert "is a campaign already" in call("init", root, *options, code=2).err


def test_a_trial_in_a_campaigns_folder_is_of_its_trainer_and_leaves_no_record(fresh: Path) -> None:
    edit(fresh, "def main():\n", "def main():\n    print('edited here')\n    raise SystemExit(3)\n")
    assert "edited here" in call("train", "--steps", 2, code=1).err
    assert call("log").out.count("\n") == 1
    assert "edited here" in (fresh / "train.py").read_text(encoding="utf-8")


def test_try_keeps_what_is_better_and_takes_back_what_is_not(fresh: Path) -> None:
    edit(fresh, "DEPTH = 2", "DEPTH = 1")
    worse = call("try", "-m", "the last token tells nothing", "--json").last
    assert (worse["verdict"], worse["experiment"], worse["repeat"]) == ("discard", 1, False)
    assert worse["val_bpb"] > worse["champion_bpb"]
    assert "DEPTH = 2" in (fresh / "train.py").read_text(encoding="utf-8")

    edit(fresh, "DEPTH = 2", "DEPTH = 1  ")
    again = call("try", "-m", "surely it does", "--json").last
    assert (again["repeat"], again["experiment"], again["verdict"]) == (True, 1, "discard")
    assert call("status", "--json").json["experiments"] == 1

    edit(fresh, "BACKOFF = 20.0", "BACKOFF = 2000.0")
    told = call("try", "-m", "counts are not to be trusted").out
    assert "experiment 2: counts are not to be trusted" in told
    assert "reason: " in told
    assert "equals the champion's" in call("try", "-m", "nothing", code=2).err


AGENT = """
set -eu
attempt() {  # a sed expression, the hypothesis
  sed -i.bak "$1" train.py && rm train.py.bak
  autoresearch try -m "$2" --json > answer.json 2> progress.txt
  python -c "import json; a = json.load(open('answer.json')); print(a['verdict'], a['experiment'], a['repeat'])"
}
"""
# A sed expression, the hypothesis, and the verdict where it is certain.
ATTEMPTS = {
    "less": ("s/^SMOOTHING = .*/SMOOTHING = 0.05/", "rare tokens need less", ""),
    "more": ("s/^SMOOTHING = .*/SMOOTHING = 9.0/", "rare tokens need more", ""),
    "shallow": ("s/^DEPTH = 2/DEPTH = 1/", "the last token tells nothing", "discard"),
    "again": ("s/^DEPTH = 2/DEPTH = 1/", "the last token tells nothing, really", "discard"),
    "trusting": ("s/^BACKOFF = .*/BACKOFF = 5.0/", "counts can be trusted", ""),
    "slip": ("s/^import numpy as np/import nompy as np/", "a slip", "crash"),
    "syntax": ("s/^def main():/def main(:/", "another slip", "crash"),
    "sign": ("s/float(-log/float(log/", "a loss with the wrong sign is only reported", ""),
    "finnish": ("s/trial.finish(/trial.finnish(/", "nothing is handed over", "crash"),
    "short": ("s/^SEQUENCE_LENGTH = 64/SEQUENCE_LENGTH = 32/", "short rows, more of them", ""),
}


@pytest.mark.skipif(os.name == "nt", reason="the script is for a POSIX shell")
@pytest.mark.parametrize(
    "names", [["less", "shallow", "again", "slip"], pytest.param([*ATTEMPTS], marks=pytest.mark.long)], ids=len
)
def test_a_coding_agent_tries_from_a_shell_script(fresh: Path, tmp_path: Path, names: list[str]) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "autoresearch").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m core.cli "$@"\n', encoding="utf-8")
    (tools / "autoresearch").chmod(0o755)
    (tools / "python").symlink_to(sys.executable)
    root = Path(presets.__file__).parent.parent
    environment = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(root)}
    script = AGENT + "\n".join(shlex.join(["attempt", *ATTEMPTS[name][:2]]) for name in names)
    done = subprocess.run(["sh", "-c", script], cwd=fresh, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    verdicts = [tuple(line.split()) for line in done.stdout.splitlines()]
    new = [name for name in names if name != "again"]
    numbers = {name: number for number, name in enumerate(new, 1)} | {"again": new.index("shallow") + 1}
    assert [number for _, number, _ in verdicts] == [str(numbers[name]) for name in names]
    assert [repeat for _, _, repeat in verdicts] == [str(name == "again") for name in names]
    for name, (verdict, _, _) in zip(names, verdicts, strict=True):
        assert verdict == ATTEMPTS[name][2] or not ATTEMPTS[name][2], name

    status = call("status", "--json").json
    crashes = sum(ATTEMPTS[name][2] == "crash" for name in names)
    assert (status["experiments"], status["crashed"]) == (len(new), crashes)
    records = call("log", "--json").json
    scores = [record["val_bpb"] for record in records if record["verdict"] == "keep"]
    assert scores == sorted(scores, reverse=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=fresh, capture_output=True, text=True, check=True)
    assert head.stdout.strip() == status["champion_commit"]
    assert (fresh / "train.py").read_text(encoding="utf-8") == call("show", kept(records), "train.py").out
    assert "nompy" in call("show", numbers["slip"], "output").out


def kept(records: list[dict[str, Any]]) -> int:
    """The number of the last experiment that was kept."""
    return max(int(record["number"]) for record in records if record["verdict"] == "keep")


@contextlib.contextmanager
def started(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.skipif(os.name == "nt", reason="Windows sends Ctrl-C to a whole console, this test's own too")
def test_ctrl_c_says_how_to_go_on_and_the_next_run_does(tmp_path: Path, options: list[str]) -> None:
    root, trainer = tmp_path / "night", tmp_path / "train.py"
    trainer.write_text(reference_trainer(RESTING), encoding="utf-8")
    call("init", root, *options, "--trainer", trainer, "--budget", 2)
    call("run", root, "--experiments", 0)
    # What the campaign has already may stay, and what a run is limited to must.
    again = ["run", root, *options, "--budget", 2, "--hours", 5, "--seed", 3]
    with started(*again) as process:
        assert process.stderr is not None
        before = ""
        for line in process.stderr:
            before += line
            if "experiment 1, seed 1: training" in line:
                break
        process.send_signal(signal.SIGINT)
        begun = time.monotonic()
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    # The ending of a limit: rows, the champion, its text, the picture.
    for part in ("#  verdict", "keep", "champion", "text from experiment 0", f"plot: {root / 'progress.png'}"):
        assert part in out
    assert "limits: 5 hours (--hours). Ctrl-C ends it too" in before
    assert time.monotonic() - begun < 15
    assert f"`{shlex.join(['autoresearch', *map(str, again)])}` continues from here" in err
    assert "Traceback" not in err
    assert call("status", "--dir", root, "--json").json["experiments"] == 0
    assert "experiment 1 (resumed)" in call(*again, "--experiments", 1).err
    assert call("status", "--dir", root, "--json").json["experiments"] == 1
