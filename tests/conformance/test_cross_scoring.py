"""Real trials: what one backend trained, another scores the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from conformance import adapters
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
    total_batch_size=1024,
    device_batch_size=8,
    startup_seconds=240.0,
    silence_seconds=120.0,
    score_bytes=20_000,
)
# Constants that no file has: windows, width of heads and of the model, and what is no shape.
CONSTANTS: dict[str, dict[str, Constant]] = {
    "windows": {"ASPECT_RATIO": 32, "HEAD_DIM": 32, "WINDOW_PATTERN": "SL", "SOFTCAP": 12.0},
    "narrow heads": {"DEPTH": 3, "ASPECT_RATIO": 16, "HEAD_DIM": 16, "WINDOW_PATTERN": "SSL", "ROTARY_BASE": 500.0},
}
PAIRS = [
    *((backend, adapters.REFERENCE, "windows") for backend in adapters.OTHERS),
    (*adapters.OTHERS, "narrow heads"),
]


@dataclasses.dataclass(frozen=True)
class Trained:
    """One finished trial."""

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
def trained(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Trained]:
    """The trial of a backend's reference trainer with some of CONSTANTS; run once."""
    done: dict[tuple[str, str], Trained] = {}

    def of(backend: str, constants: str) -> Trained:
        if reason := adapters.unavailable(backend):
            pytest.skip(reason)
        key, preset = (backend, constants), preset_of(backend, constants)
        if key not in done:
            folder = tmp_path_factory.mktemp(backend)
            text = backends.trainer_path(backend).read_text(encoding="utf-8")
            trainer = write_constants(text, preset.trainer_constants())
            spec = TrialSpec(trainer=trainer, preset=preset, budget=Budget(steps=12), seed=3, into=folder / "trial")
            done[key] = Trained(preset, run_trial(spec, dataset), trainer, spec.into)
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
    trained: Callable[[str, str], Trained], dataset: Dataset, backend: str, against: str, constants: str
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
        assert score.val_bpb < 6.0, "twelve steps have learnt something, so that weights matter"
