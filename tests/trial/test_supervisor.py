"""One trial, run for real: what its record says, and that whatever a trainer does ends in a record."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import PRESET, trainer_text

from core.data import Dataset, prepare
from core.events import Progress
from core.records import Budget, Facts, Trial, UserError, from_json, to_json
from core.trial.process import TrialFailed
from core.trial.scoring import Scorer
from core.trial.spec import TrialSpec
from core.trial.supervisor import backend_environment, run_trial

Run = Callable[..., Any]  # a Trial; Any, for what is None only after a failure


@pytest.mark.real_start
def test_a_record_is_whole(run: Run, tmp_path: Path) -> None:
    trial = run(steps=40)
    assert (trial.verdict, trial.reason) == ("scored", "")
    assert trial.steps == 40
    assert trial.tokens == 40 * trial.rows * trial.sequence_length
    assert trial.parameters == 256 * 256
    assert 0 < trial.val_bpb < 8
    assert trial.tokens_per_second == pytest.approx(trial.tokens / trial.train_seconds)
    assert trial.mfu == pytest.approx(trial.tokens_per_second * trial.flops_per_token / 1e9)
    assert trial.wall_seconds >= trial.startup_seconds + trial.train_seconds + trial.score_seconds
    assert trial.peak_memory_mb > 20
    assert trial.scored_bytes >= 4000
    assert trial.choices["kernel"] == "counts (nothing to choose)"
    assert set(trial.versions) >= {"python", "numpy"}
    assert from_json(Trial, json.loads(json.dumps(to_json(trial)))) == trial
    folder = tmp_path / "trial" / "1"
    curve = [json.loads(line) for line in (folder / "curve.jsonl").read_text().splitlines()]
    assert [point["step"] for point in curve] == [1, 17, 33]
    assert json.loads((folder / "facts.json").read_text())["seed"] == 1
    assert (folder / "weights.safetensors").exists()


def test_training_beats_no_training(run: Run) -> None:
    assert run(steps=60).val_bpb < run(steps=1).val_bpb - 0.05


def test_seconds_are_kept_to(run: Run) -> None:
    trial = run(trainer_text(each="import time; time.sleep(0.05)"), seconds=1.5)
    assert trial.verdict == "scored"
    assert 1.2 < trial.train_seconds < 1.7
    assert 20 <= trial.steps <= 30


def test_one_seed_repeats_to_the_last_digit_and_another_differs(run: Run) -> None:
    first, again, other = run(seed=3), run(seed=3), run(seed=4)
    assert first.val_bpb == again.val_bpb
    assert first.weights_sha256 == again.weights_sha256
    assert first.val_bpb != other.val_bpb


def test_vocabulary_batch_and_context_leave_the_scored_bytes_alone(run: Run, corpus_folder: Path) -> None:
    plain = run()
    shapes = [run(trainer_text(rows=rows, length=length)) for rows, length in ((3, 7), (64, 128))]
    words = run(data=prepare(f"folder:{corpus_folder}", 512), vocabulary=512)
    for trial in (*shapes, words):
        assert trial.verdict == "scored"
        assert (trial.yardstick, trial.scored_bytes) == (plain.yardstick, plain.scored_bytes)
    assert words.vocabulary == 512


def test_a_uniform_model_scores_log2_of_the_vocabulary(run: Run) -> None:
    trial = run(trainer_text(after='trial.finish({"counts": np.ones((256, 256), np.float32)})'))
    assert trial.val_bpb == pytest.approx(8.0, abs=1e-6)


FAILURES = {
    "syntax": ("def main(:\n    pass\n", "crash", "SyntaxError"),
    "raises": (trainer_text(each='raise ValueError("no such thing")'), "crash", "ValueError: no such thing (line"),
    "import": ("import nothing_of_that_name\n", "crash", "ModuleNotFoundError"),
    "no main": ("x = 1\n", "crash", "AttributeError"),
    "exits": (trainer_text(each="import os; os._exit(3)"), "crash", "exit status 3"),
    "system exit": (trainer_text(each="raise SystemExit(0)"), "crash", "SystemExit"),
    "segfault": (trainer_text(each="import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"), "crash", "SIGSEGV"),
    "nan": (trainer_text(each='trial.report(loss=float("nan"))'), "crash", "the loss is nan at step 1"),
    "diverged": (
        trainer_text(each="trial.report(loss=1.0 if step < 2 else 23.0)"),
        "crash",
        "diverged: the loss is 23",
    ),
    "no finish": (trainer_text(after="pass"), "crash", "without trial.finish"),
    "no batch": (trainer_text(before="trial.finish({}); return"), "invalid", "without one real batch"),
    "nan weights": (trainer_text(after='trial.finish({"counts": counts * np.nan})'), "crash", "not finite"),
    "wrong weights": (trainer_text(after='trial.finish({"other": counts})'), "crash", "KeyError (line"),
    "late warm-up": (trainer_text(each="next(trial.warmup(2, 8))"), "invalid", "after the clock"),
    "huge batch": (trainer_text(rows=2**20, length=2**20), "crash", "at most 1 GiB"),
    "shape changes": (trainer_text(each="next(trial.batches(2, 8))"), "crash", "not 2 x 8"),
    "garbage": (trainer_text(each='trial._channel._writer.write(b"x" * 99)'), "crash", "broke the protocol"),
    "talks nonsense": (
        trainer_text(each='trial._channel.send("give me the test split")'),
        "crash",
        "broke the protocol",
    ),
    "no distribution": (
        trainer_text().replace("table[tokens]", "np.full((*tokens.shape, 256), np.nan, np.float32)"),
        "crash",
        "not finite",
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_trainer_that_fails_ends_in_a_verdict_with_its_reason(run: Run, name: str, tmp_path: Path) -> None:
    text, verdict, reason = FAILURES[name]
    trial = run(text)
    assert trial.verdict == verdict
    assert reason in trial.reason
    assert trial.val_bpb is None
    assert not (tmp_path / "trial" / "1" / "weights.safetensors").exists()


@pytest.mark.real_start
def test_what_was_printed_is_kept_with_the_record(run: Run, tmp_path: Path) -> None:
    run(trainer_text(before='print("from print"); import sys; sys.stderr.write("from stderr\\n")'))
    output = (tmp_path / "trial" / "1" / "output.txt").read_text()
    assert "from print" in output
    assert "from stderr" in output


def test_a_failure_while_scored_tells_no_message(run: Run) -> None:
    text = trainer_text().replace("table[tokens]", '(_ for _ in ()).throw(ValueError("secret " + str(tokens)))')
    trial = run(text)
    assert trial.verdict == "crash"
    assert "ValueError (line" in trial.reason
    assert "secret" not in trial.reason


def test_a_flood_of_output_ends_the_trial_and_keeps_its_ends(run: Run, tmp_path: Path) -> None:
    flood = 'print("first words"); [print("x" * 999_999) for _ in range(100)]'
    trial = run(trainer_text(before=flood))
    assert trial.verdict == "crash"
    assert "printed more than 64 MB" in trial.reason
    output = (tmp_path / "trial" / "1" / "output.txt").read_text()
    assert output.startswith("first words")
    assert "left out" in output
    assert len(output) < 2**19


def test_silence_ends_a_trial(run: Run) -> None:
    trial = run(trainer_text(each="import time; time.sleep(600)"), silence_seconds=1.0)
    assert (trial.verdict, trial.reason) == ("crash", "silent for 1 s")


def test_a_start_up_without_end_is_a_crash(run: Run) -> None:
    trial = run(trainer_text(before="import time; time.sleep(600)"), startup_seconds=2.0)
    assert trial.verdict == "crash"
    assert "start-up allowance of 2 s" in trial.reason


WARMUP = """
    import time
    for n, _ in enumerate(trial.warmup(16, 32)):
        if n == 2:
            break
        time.sleep({} if n == 0 else {})
"""
SLOW, COMPILING = WARMUP.format(0.4, 0.4).strip(), WARMUP.format(0.4, 0).strip()


@pytest.mark.parametrize(
    ("before", "each", "reason", "steps"),
    [
        (SLOW, "time.sleep(600)", "a step was still running after 0.3 s, so a budget of 1.2 s holds at most 3", 1),
        # After a warm-up that was fast, and without one, the first step may compile: the second one decides.
        (COMPILING, "time.sleep(0.4)", "a step was still running after 0.3 s", 2),
        ("import time", "time.sleep(0.4)", "a step was still running after 0.3 s", 2),
        ("import time", "time.sleep(1.1)", "a step took 1.1 s, so a budget of 1.2 s holds at most 1", 1),
    ],
)
def test_a_budget_of_fewer_than_five_steps_ends_at_once(
    run: Run, monkeypatch: pytest.MonkeyPatch, before: str, each: str, reason: str, steps: int
) -> None:
    monkeypatch.setattr("core.trial.training.CHANCE_SECONDS", 0.3)
    trial = run(trainer_text(before=before, each=each), seconds=1.2)
    assert (trial.verdict, trial.steps, trial.val_bpb, trial.score_seconds) == ("invalid", steps, None, 0)
    assert reason in trial.reason
    assert "make a step smaller" in trial.reason


@pytest.mark.parametrize("before", [COMPILING, "import time"])
def test_one_slow_step_is_no_slow_trainer(run: Run, monkeypatch: pytest.MonkeyPatch, before: str) -> None:
    monkeypatch.setattr("core.trial.training.CHANCE_SECONDS", 0.3)
    trial = run(trainer_text(before=before, each="time.sleep(0.5 if step == 0 else 0.05)"), seconds=1.2)
    assert (trial.verdict, trial.reason) == ("scored", "")


def test_a_budget_of_steps_may_hold_few_slow_ones(run: Run) -> None:
    assert run(trainer_text(before=SLOW, each="time.sleep(0.6)"), steps=2).verdict == "scored"


def test_an_overrun_is_invalid(run: Run) -> None:
    trial = run(trainer_text(after='import time; time.sleep(1.5); trial.finish({"counts": counts})'), seconds=1.0)
    assert trial.verdict == "invalid"
    assert trial.reason.startswith("overran: ")
    assert trial.val_bpb is None


def test_a_second_of_overrun_is_allowed_where_it_is_more_than_two_percent(run: Run) -> None:
    trial = run(trainer_text(after='import time; time.sleep(0.4); trial.finish({"counts": counts})'), seconds=1.0)
    assert (trial.verdict, trial.reason) == ("scored", "")
    assert trial.train_seconds > 1.2


def test_weights_that_change_while_they_are_scored_are_seen(dataset: Dataset, tmp_path: Path) -> None:
    into = tmp_path / "trial"

    def change(progress: Progress) -> None:
        if progress.phase == "score" and progress.fraction == 1:
            raw = bytearray((into / "weights.safetensors").read_bytes())
            raw[-1] ^= 1
            (into / "weights.safetensors").write_bytes(raw)

    spec = TrialSpec(trainer=trainer_text(), preset=PRESET, budget=Budget(steps=3), seed=1, into=into)
    trial = run_trial(spec, dataset, change)
    assert trial.verdict == "invalid"
    assert trial.reason == "the audit: the weights were changed while they were scored"


def test_warm_up_has_sixteen_batches_of_random_ids_and_no_clock(run: Run) -> None:
    fits = "batch.shape == (4, 17) and 0 <= batch.min() < batch.max() < 256"
    count = f"n = sum(1 for batch in trial.warmup(4, 16) if {fits})"
    trial = run(trainer_text(before=f"{count}; import time; time.sleep(0.3); assert n == 16, n"))
    assert trial.verdict == "scored"
    assert trial.train_seconds < 0.3 < trial.startup_seconds


def test_a_batch_is_the_trainers_own(run: Run) -> None:
    keep = 'kept = globals().setdefault("kept", []); kept.append((tokens, tokens.copy())); tokens[0, 0] = tokens[0, 0]'
    check = "assert all((a == b).all() for a, b in kept) and len({b.tobytes() for _, b in kept}) == 5"
    assert run(trainer_text(each=keep, after=f'{check}; trial.finish({{"counts": counts}})')).verdict == "scored"


def test_progress_runs_from_nought_towards_one(run: Run) -> None:
    check = "assert trial.progress == step / 5"
    assert run(trainer_text(each=check)).verdict == "scored"


@pytest.mark.real_start
def test_secrets_stay_outside(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-secret")
    monkeypatch.setenv("AUTORESEARCH_TEST_SECRET", "sk-secret")
    check = 'import os; assert "sk-secret" not in str(os.environ) and os.environ["HOME"] == os.getcwd()'
    trial = run(trainer_text(before=check))
    assert (trial.verdict, trial.reason) == ("scored", "")


@pytest.mark.real_start
def test_a_folder_in_the_campaign_shadows_nothing(run: Run, tmp_path: Path) -> None:
    for name in ("core", "backends", "numpy"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('shadowed')")
    assert run(trainer_text()).verdict == "scored"


def test_an_unknown_device_is_the_users_mistake(run: Run) -> None:
    with pytest.raises(UserError, match="runs on the CPU only"):
        run(device="cuda")


def test_a_trainer_cannot_pose_as_the_users_mistake(run: Run) -> None:
    text = trainer_text(before='from core.records import UserError; raise UserError("stop the campaign")')
    assert run(text).verdict == "crash"


def test_a_relative_folder_is_the_callers(dataset: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec = TrialSpec(
        trainer=trainer_text(), preset=PRESET, budget=Budget(steps=3), seed=1, into=Path("kept"),
        trainer_path=Path("t/train.py"),
    )  # fmt: skip
    assert run_trial(spec, dataset).verdict == "scored"
    assert (tmp_path / "t" / "train.py").read_text(encoding="utf-8") == trainer_text()
    assert (tmp_path / "kept" / "weights.safetensors").is_file()


def test_a_parked_process_leaves_the_device_alone(dataset: Any, tmp_path: Path) -> None:
    """Which only one process may hold on some: a device that isn't here is missed when the model is restored."""
    preset = dataclasses.replace(PRESET, device="cuda")
    with Scorer(trainer_text(), preset, backend_environment(preset), tmp_path / "usage.json") as scorer:
        scorer.park(time.monotonic() + 60)
        facts = Facts(vocabulary=256, bos=255, seed=1, backend="numpy", device="cuda", sequence_length=32)
        weights = tmp_path / "weights.safetensors"
        weights.write_bytes(b"")
        with pytest.raises(TrialFailed):
            scorer.restore(weights, facts)
