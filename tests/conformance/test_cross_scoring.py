"""Real trials of the reference trainers: each repeats, and what one backend trained, another scores the same."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conformance import adapters
from forking import Starts
from support import PRESET

import backends
from core.data import Dataset, prepare
from core.records import Budget, Constant, Facts, Preset, Score, Trial
from core.trainer.constants import write_constants
from core.trial.model import open_model
from core.trial.spec import TrialSpec
from core.trial.supervisor import run_trial

SMALL = dataclasses.replace(
    PRESET,
    vocabulary=256,
    sequence_length=64,
    total_batch_size=512,
    device_batch_size=4,
    startup_seconds=240.0,
    silence_seconds=120.0,
    score_bytes=6_000,
)
# Constants that no file has: windows, width of heads and of the model, and what is no shape.
CONSTANTS: dict[str, dict[str, Constant]] = {
    "windows": {"ASPECT_RATIO": 32, "HEAD_DIM": 32, "WINDOW_PATTERN": "SL", "SOFTCAP": 12.0},
    "narrow heads": {"DEPTH": 3, "ASPECT_RATIO": 16, "HEAD_DIM": 16, "WINDOW_PATTERN": "SSL", "ROTARY_BASE": 500.0},
}
STEPS = 20
BACKENDS = (adapters.REFERENCE, *adapters.OTHERS)
PAIRS = [
    *((backend, adapters.REFERENCE, "windows") for backend in adapters.OTHERS),
    pytest.param(*adapters.OTHERS, "narrow heads", marks=pytest.mark.long),
]


@dataclasses.dataclass(frozen=True)
class Trained:
    """One trial that has ended."""

    preset: Preset
    trial: Trial
    trainer: str
    folder: Path


def preset_of(backend: str, constants: str) -> Preset:
    values = dict(CONSTANTS[constants])
    depth = int(str(values.pop("DEPTH", SMALL.depth)))
    return dataclasses.replace(SMALL, backend=backend, name=backend, depth=depth, constants=values)


@pytest.fixture(scope="session")
def dataset(cache: Path, corpus_folder: Path) -> Dataset:
    return prepare(f"folder:{corpus_folder}", SMALL.vocabulary)


@pytest.fixture(scope="session")
def trained(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Trained]:
    """The trial of a backend's reference trainer with some of CONSTANTS; run once, unless it is to be run `again`.

    Other keywords are constants over those, or the number of `steps`.
    """
    done: dict[tuple[str, str], Trained] = {}

    def run(backend: str, constants: str, steps: int = STEPS, **more: Constant) -> Trained:
        if reason := adapters.unavailable(backend):
            pytest.skip(reason)
        preset = preset_of(backend, constants)
        text = backends.trainer_path(backend).read_text(encoding="utf-8")
        trainer = write_constants(text, {**preset.trainer_constants(), **more})
        into = tmp_path_factory.mktemp(backend) / "trial"
        spec = TrialSpec(trainer=trainer, preset=preset, budget=Budget(steps=steps), seed=3, into=into)
        return Trained(preset, run_trial(spec, dataset), trainer, into)

    def of(backend: str, constants: str, *, again: bool = False, **changes: Any) -> Trained:
        if again or changes:
            return run(backend, constants, **changes)
        key = (backend, constants)
        if key not in done:
            done[key] = run(backend, constants)
        assert done[key].trial.verdict == "scored", done[key].trial.reason
        return done[key]

    return of


def scored_by(scorer: Trained, made: Trained, dataset: Dataset) -> Score:
    """The score that the trainer of one trial gives the weights of another."""
    backend = scorer.trial.backend
    facts = Facts(
        vocabulary=dataset.tokenizer.vocabulary,
        bos=dataset.tokenizer.bos,
        seed=3,
        backend=backend,
        device="cpu",
        sequence_length=64,
    )
    with open_model(scorer.trainer, made.folder / "weights.safetensors", facts, scorer.preset) as model:
        return model.score(dataset.scored("val", SMALL.score_bytes))


@pytest.mark.parametrize(("backend", "against", "constants"), PAIRS)
def test_what_one_backend_trained_another_scores_the_same(
    trained: Callable[..., Trained], dataset: Dataset, backend: str, against: str, constants: str
):
    """In both directions; and the records of both agree in all but what depends on numbers."""
    one, other = trained(backend, constants), trained(against, constants)
    for name in (
        "verdict steps tokens parameters flops_per_token vocabulary sequence_length rows scored_bytes yardstick seed"
    ).split():
        assert getattr(one.trial, name) == getattr(other.trial, name), name
    assert one.trial.choices.keys() == other.trial.choices.keys()
    assert one.trial.final_loss == pytest.approx(other.trial.final_loss, abs=0.1)
    for scorer, made in ((one, other), (other, one)):
        score = scored_by(scorer, made, dataset)
        assert score.yardstick == made.trial.yardstick
        assert score.val_bpb == pytest.approx(made.trial.val_bpb, abs=1e-5), f"scored by {scorer.trial.backend}"
        assert score.val_bpb < 6.0, "twenty steps have learnt something, so that weights matter"


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_trial_trains_and_is_scored_the_same_twice(
    trained: Callable[..., Trained], backend: str, cache: Path, starts: Starts, monkeypatch: pytest.MonkeyPatch
):
    first = trained(backend, "windows")
    trial = first.trial
    curve = [json.loads(line)["loss"] for line in (first.folder / "curve.jsonl").read_text().splitlines()]
    assert len(curve) == STEPS
    assert curve[0] == pytest.approx(5.545, abs=0.01), "ln 256: it starts as a guess"
    assert curve[-1] < 3.5
    assert trial.val_bpb is not None and 2.0 < trial.val_bpb < 6.0
    assert (trial.tokens, trial.rows, trial.sequence_length) == (STEPS * 512, 8, 64)
    assert trial.flops_per_token is not None
    assert set(trial.choices) == {"kernel", "dtype", "compile"}
    assert all("(" in choice for choice in trial.choices.values())
    assert trial.versions[backend]

    programs = compiled(cache)
    monkeypatch.setattr(starts, "fork", False)  # the first one's processes may have been forked
    second = trained(backend, "windows", again=True).trial
    assert second.val_bpb == (trial.val_bpb if backend == "jax" else pytest.approx(trial.val_bpb, abs=1e-6))
    assert second.weights_sha256 == trial.weights_sha256
    assert compiled(cache) == programs, "the second trial compiled nothing"


# Not JAX, which would compile anew. Thirty rows of which seven fit are five slices of six.
@pytest.mark.parametrize(
    ("backend", "constants", "rows"),
    [
        ("torch", {"TOTAL_BATCH_SIZE": 300, "DEVICE_BATCH_SIZE": 8}, 8),
        ("mlx", {"TOTAL_BATCH_SIZE": 1024, "DEVICE_BATCH_SIZE": 7}, 30),
    ],
)
def test_other_constants_train_and_are_scored(
    trained: Callable[..., Trained], backend: str, constants: dict[str, Constant], rows: int
):
    first = trained(backend, "windows").trial
    other = trained(backend, "windows", steps=2, SEQUENCE_LENGTH=32, DEPTH=1, **constants).trial
    assert other.verdict == "scored", other.reason
    assert (other.sequence_length, other.rows) == (32, rows)
    assert other.parameters is not None and first.parameters is not None and other.parameters < first.parameters
    assert other.weights_sha256 != first.weights_sha256
    assert (other.scored_bytes, other.yardstick) == (first.scored_bytes, first.yardstick)


def test_rates_are_no_part_of_the_program_of_jax(trained: Callable[..., Trained], cache: Path):
    first = trained("jax", "windows").trial
    assert {"jax", "jaxlib", "flax", "optax"} <= first.versions.keys()
    programs = compiled(cache)
    assert any("train_step" in name for name in programs)
    rates: dict[str, Constant] = {"MATRIX_LR": 0.02, "EMBEDDING_LR": 0.3, "ADAM_BETAS": (0.9, 0.95)}
    searched = trained("jax", "windows", **rates, WARMDOWN_RATIO=0.3).trial
    assert searched.verdict == "scored", searched.reason
    assert searched.weights_sha256 != first.weights_sha256
    assert compiled(cache) == programs


def compiled(cache: Path) -> set[str]:
    """Names of the programs in JAX's compile cache."""
    return {path.name for path in (cache / "compiled" / "jax" / "xla").glob("*-cache")}


NOT_TO_BE_HAD = {
    "torch": ("jit", 'COMPILE is "auto", "inductor" or "eager"'),
    "jax": ("inductor", 'COMPILE is "auto", "xla" or "eager" for JAX'),
    "mlx": ("inductor", 'COMPILE is "auto", "compile" or "eager"'),
}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_choice_that_cannot_be_had_ends_the_trial_and_says_why(trained: Callable[..., Trained], backend: str):
    value, reason = NOT_TO_BE_HAD[backend]
    trial = trained(backend, "windows", steps=2, COMPILE=value).trial
    assert trial.verdict == "crash"
    assert reason in trial.reason
