"""Forward, backward and the optimizer's step at the shapes of every CUDA preset, without a device: all on `meta`."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import presets
from presets import devices

# With nothing missing: Linux, Triton, a compiler, and on a Hopper the kernel in the cache.
FULL: dict[str, Any] = {"device": "cuda", "triton": True, "compiler": True, "flash3": True}


def cuda_presets() -> list[str]:
    """Presets for PyTorch on CUDA or ROCm."""
    return [name for name in presets.names() if is_for_cuda(name)]


def is_for_cuda(name: str) -> bool:
    preset = presets.load(name)
    return (preset.backend, preset.device) == ("torch", "cuda")


def machine_of(trainer: Any, name: str) -> Any:
    """The machine that the preset is for, by the facts of its device."""
    device = devices.named(presets.origin(name).device)
    if device.arch:
        return trainer.Machine(arch=device.arch, **FULL)
    assert device.capability is not None, f"[{device.key}] of devices.toml has neither capability nor arch"
    return trainer.Machine(capability=device.capability, **FULL)


@pytest.mark.parametrize("name", cuda_presets())
def test_a_step_at_the_shapes_of_a_preset(load_trainer, name):
    """Nothing is computed: shapes, dtypes and the autograd graph are what is true of the device too."""
    preset = presets.load(name)
    trainer = load_trainer(full=True, **preset.trainer_constants())
    choices = trainer.choose(machine_of(trainer, name))
    assert choices.dtype in (torch.bfloat16, torch.float16)
    rows, slices = trainer.batch_shape(trainer.TOTAL_BATCH_SIZE, trainer.SEQUENCE_LENGTH, preset.device_batch_size)
    with torch.device("meta"):
        model = trainer.GPT(preset.vocabulary, dtype=choices.dtype)
        slice_BT1 = torch.empty(rows // slices, preset.sequence_length + 1, dtype=torch.int32)
    assert all(value.dtype == torch.float32 for value in model.parameters())

    logits_BTV = model(slice_BT1[:, :-1])
    assert logits_BTV.shape == (rows // slices, preset.sequence_length, preset.vocabulary)
    assert logits_BTV.dtype == torch.float32

    model.loss(slice_BT1).backward()
    for weight, value in model.named_parameters():
        assert value.grad is not None, weight
        assert (value.grad.shape, value.grad.dtype) == (value.shape, torch.float32), weight

    optimizer = trainer.MuonAdamW(model)
    assert optimizer.muon_dtype == (torch.bfloat16 if choices.dtype == torch.bfloat16 else torch.float32)
    optimizer.step()
    assert all(value.device.type == "meta" for value in model.parameters()), "nothing was brought onto a real device"

    width, depth = model.width, preset.depth
    embedded, gate = len(model.value_embeddings), min(trainer.GATE_CHANNELS, width) * width // trainer.HEAD_DIM
    assert embedded == (depth + 1) // 2
    multiplied = depth * 12 * width**2 + embedded * gate + preset.vocabulary * width
    assert sum(value.numel() for value in model.parameters()) == (
        multiplied + (1 + embedded) * preset.vocabulary * width + 2 * depth
    )
    assert model.flops_per_token() > 6 * multiplied


def test_the_presets_of_cuda_are_found():
    assert "h100" in cuda_presets()


@pytest.mark.parametrize("name", cuda_presets())
def test_what_a_device_is_said_to_choose_is_chosen(load_trainer, name):
    """devices.toml tells estimates which kernel and dtype to reckon with."""
    trainer = load_trainer(full=True, **presets.load(name).trainer_constants())
    device = devices.named(presets.origin(name).device)
    choices = trainer.choose(machine_of(trainer, name))
    assert (choices.kernel, str(choices.dtype)) == (device.kernel, f"torch.{device.dtype}")
