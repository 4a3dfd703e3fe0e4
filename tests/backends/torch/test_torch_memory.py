"""Memory that is not there, under PyTorch itself: recognized, and the reference trainer goes on with half the rows."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
import torch

import backends
from core.data import prepare
from core.records import Budget, Preset
from core.trainer.constants import write_constants
from core.trial.spec import TrialSpec
from core.trial.supervisor import run_trial


def test_what_the_allocator_says_is_known():
    with pytest.raises(RuntimeError) as told:
        torch.empty(2**50)
    assert backends.get("torch").out_of_memory(f"RuntimeError: {told.value}")
    assert backends.get("torch").out_of_memory(f"OutOfMemoryError: {torch.OutOfMemoryError('CUDA out of memory')}")


@pytest.mark.skipif(sys.platform == "win32", reason="the allocation that fails is Linux's and macOS's")
def test_a_reference_trainer_takes_the_same_batches_in_more_slices(tmp_path: Path, corpus_folder: Path):
    preset = Preset(
        name="test", backend="torch", device="cpu", corpus=f"folder:{corpus_folder}", vocabulary=256, depth=1,
        sequence_length=32, total_batch_size=256, device_batch_size=8, budget_seconds=60, startup_seconds=120,
        silence_seconds=120, score_bytes=2000, peak_tflops=1,
    )  # fmt: skip
    text = write_constants(
        backends.trainer_path("torch").read_text(encoding="utf-8"),
        {**preset.trainer_constants(), "ASPECT_RATIO": 16, "HEAD_DIM": 16, "COMPILE": "eager"},
    )
    short = text.replace("        trial.report(loss=stepper", "        fits(trial)\n        trial.report(loss=stepper")
    assert short != text
    short += "\n\ndef fits(trial):\n    if trial.device_rows > 4:\n        torch.empty(2**50)\n"
    dataset = prepare(preset.corpus, 256)
    records = []
    for name, of in (("plain", text), ("short", short)):
        spec = TrialSpec(trainer=of, preset=preset, budget=Budget(steps=3), seed=1, into=tmp_path / name)
        records.append(dataclasses.asdict(run_trial(spec, dataset)))
    plain, again = records
    assert again["verdict"] == "scored", again["reason"]
    assert (plain["device_rows"], again["device_rows"]) == (8, 4)
    assert again["notes"][0].startswith("out of memory at step 1 with 8 rows on the device at once; trained again with")
    for same in ("steps", "rows", "tokens", "sequence_length", "seed"):
        assert plain[same] == again[same]
    assert again["val_bpb"] == pytest.approx(plain["val_bpb"], abs=2e-3)  # two slices round otherwise than one
