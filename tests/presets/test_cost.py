"""What a shape costs, counted from a preset, against what the PyTorch trainer of that shape has."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import presets
from core.records import Preset
from core.trainer.reference import reference_trainer
from core.trial.child.worker import load
from presets import cost, devices

torch = pytest.importorskip("torch", reason="PyTorch is not installed: uv pip install 'autoresearch[torch]'")
# One of each family: what differs between them is depth, width, windows and vocabulary.
NAMES = ("h100", "cpu", "smoke", "rtx4090", "t4", "m1", "m4-max", "tpu-v5e")


@pytest.mark.parametrize("name", NAMES)
def test_parameters_and_flops_are_the_trainers(name: str, tmp_path: Path) -> None:
    preset = dataclasses.replace(presets.load(name), backend="torch")
    path = tmp_path / "train.py"
    path.write_text(reference_trainer(preset), encoding="utf-8")
    trainer = load(path)
    with torch.device("meta"):
        model = trainer.GPT(preset.vocabulary)
    assert model.width == cost.width(preset)
    assert sum(parameter.numel() for parameter in model.parameters()) == cost.parameters(preset)
    assert model.flops_per_token() == cost.flops_per_token(preset)
    assert trainer.batch_shape(preset.total_batch_size, preset.sequence_length, preset.device_batch_size)[0] == (
        cost.rows(preset)
    )


def test_upstreams_peak_on_an_h100_is_met() -> None:
    """Upstream reports 45.1 GB at these numbers, and 50.3M parameters."""
    preset, device = presets.load("h100"), devices.named("h100")
    assert cost.memory_gb(preset, device.kernel, device.dtype, compiled=True) == pytest.approx(45.1, rel=0.05)
    assert cost.parameters(preset) == pytest.approx(50.3e6, rel=0.001)


def test_memory_grows_with_the_rows_at_once_and_not_with_the_step() -> None:
    preset = presets.load("h100")

    def memory(changed: Preset) -> float:
        return cost.memory_gb(changed, "flex", "bfloat16", compiled=True)

    assert memory(dataclasses.replace(preset, device_batch_size=64)) < 0.6 * memory(preset)
    assert memory(dataclasses.replace(preset, total_batch_size=2**20)) == memory(preset)


def test_scores_that_are_kept_count() -> None:
    """Attention that is not fused keeps [heads, T, T] of every layer: a token's part grows with the context."""
    short = presets.load("m4-max")
    long = dataclasses.replace(short, sequence_length=2 * short.sequence_length)

    def memory(preset: Preset, kernel: str) -> float:
        return cost.memory_gb(preset, kernel, "bfloat16", compiled=False)

    kept = memory(short, "mx.fast") - memory(short, "splash")
    assert memory(long, "mx.fast") - memory(long, "splash") == pytest.approx(2 * kept)  # of as many tokens
