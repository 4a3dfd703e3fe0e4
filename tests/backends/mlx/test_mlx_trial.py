"""Real trials of the MLX trainer; PyTorch scores what MLX trained, and MLX what PyTorch trained."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import PRESET

import backends
from core.data import Dataset, prepare
from core.records import Budget, Preset, Trial
from core.trainer.constants import write_constants
from core.trial.model import open_model
from core.trial.spec import TrialSpec, read_facts
from core.trial.supervisor import run_trial

pytestmark = pytest.mark.skipif(backends.get("mlx").missing() is not None, reason="MLX is not installed here")

SMALL = dataclasses.replace(
    PRESET,
    backend="mlx",
    vocabulary=256,
    sequence_length=64,
    total_batch_size=1024,
    device_batch_size=8,
    startup_seconds=120.0,
    silence_seconds=60.0,
    constants={"ASPECT_RATIO": 32, "HEAD_DIM": 32, "WINDOW_PATTERN": "SL"},
)


def trainer_of(preset: Preset, **constants: Any) -> str:
    text = backends.trainer_path(preset.backend).read_text(encoding="utf-8")
    return write_constants(text, {**preset.trainer_constants(), **constants})


@pytest.fixture
def dataset(corpus_folder: Path) -> Dataset:
    return prepare(f"folder:{corpus_folder}", SMALL.vocabulary)


@pytest.fixture
def run(dataset: Dataset, tmp_path: Path) -> Callable[..., tuple[Trial, Path]]:
    """Runs a trial of a backend's reference trainer, filled from the preset; returns its record and its folder."""

    def run(steps: int, preset: Preset = SMALL, **constants: Any) -> tuple[Trial, Path]:
        trainer, into = trainer_of(preset, **constants), tmp_path / f"into-{len(list(tmp_path.iterdir()))}"
        spec = TrialSpec(trainer=trainer, preset=preset, budget=Budget(steps=steps), seed=1, into=into)
        return run_trial(spec, dataset), into

    return run


def test_a_trial_trains_is_scored_and_scores_the_same_on_pytorch(run, dataset, tmp_path):
    trial, folder = run(20)
    assert trial.verdict == "scored", trial.reason
    curve = [json.loads(line)["loss"] for line in (folder / "curve.jsonl").read_text().splitlines()]
    assert len(curve) == 20
    assert curve[0] == pytest.approx(5.545, abs=0.01), "ln 256: it starts as a guess"
    assert curve[-1] < 3.5
    assert (trial.tokens, trial.rows, trial.sequence_length) == (20 * 1024, 16, 64)
    assert trial.flops_per_token is not None
    assert set(trial.choices) == {"kernel", "dtype", "compile"}
    assert trial.versions["mlx"]
    assert_scores_alike(trial, folder, "torch", dataset, tmp_path)


def test_what_pytorch_trained_scores_the_same_on_mlx(run, dataset, tmp_path):
    if reason := backends.get("torch").missing():
        pytest.skip(reason)
    trial, folder = run(20, dataclasses.replace(SMALL, backend="torch"))
    assert trial.verdict == "scored", trial.reason
    assert_scores_alike(trial, folder, "mlx", dataset, tmp_path)


def test_other_constants_train_and_are_scored(run):
    trial, _ = run(2, SEQUENCE_LENGTH=32, TOTAL_BATCH_SIZE=1024, DEPTH=1, DEVICE_BATCH_SIZE=7)
    assert trial.verdict == "scored", trial.reason
    assert (trial.sequence_length, trial.rows) == (32, 30), "five slices of six rows"


def test_a_choice_that_cannot_be_had_ends_the_trial_and_says_why(run):
    trial, _ = run(2, COMPILE="inductor")
    assert trial.verdict == "crash"
    assert 'COMPILE is "auto", "compile" or "eager"' in trial.reason


def assert_scores_alike(trial: Trial, folder: Path, other: str, dataset: Dataset, tmp_path: Path) -> None:
    """The same file of weights, restored by the other backend's reference trainer: the same bits per byte."""
    if reason := backends.get(other).missing():
        pytest.skip(reason)
    preset = dataclasses.replace(SMALL, backend=other)
    facts = read_facts(folder)
    there = dataclasses.replace(facts, backend=other)
    with open_model(trainer_of(preset), folder / "weights.safetensors", there, preset) as model:
        score = model.score(dataset.scored("val", preset.score_bytes))
    assert score.yardstick == trial.yardstick
    assert score.val_bpb == pytest.approx(trial.val_bpb, abs=1e-5)
