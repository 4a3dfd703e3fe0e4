"""What only a GPU can prove: every kernel of the table against the masked softmax, and whole steps on the device."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from backends.torch import backend

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA or ROCm device here"),
]


def on_cuda(trainer):
    return trainer.Machine.of("cuda")


@pytest.mark.parametrize("kernel", ["sdpa", "flex", "flash-attn-3"])
def test_a_kernel_is_the_masked_softmax(load_trainer, kernel):
    trainer = load_trainer(SEQUENCE_LENGTH=256, HEAD_DIM=64)
    machine = on_cuda(trainer)
    if kernel == "flash-attn-3" and not machine.flash3:
        pytest.skip("FlashAttention-3 needs Hopper and its kernel in the cache")
    if kernel == "flex" and trainer.choose(machine).kernel == "sdpa":
        pytest.skip("flex needs Ampere or MI, Triton and a compiler")
    generator = torch.Generator("cuda").manual_seed(0)
    shape = (2, 256, 2, 64)
    q, k, v = (torch.randn(shape, device="cuda", generator=generator).to(trainer.choose(machine).dtype) for _ in "qkv")
    for window in (128, 16, None):
        with torch.device("cuda"):
            attend = trainer.attention(kernel, window)
        attend = torch.compile(attend, dynamic=False) if kernel == "flex" else attend
        expected = trainer.attention("sdpa", window)(q.float(), k.float(), v.float())
        torch.testing.assert_close(attend(q, k, v).float(), expected, atol=2e-2, rtol=2e-2)


def test_steps_on_the_device_follow_those_on_the_cpu(load_trainer, facts):
    trainer = load_trainer(HEAD_DIM=64, ASPECT_RATIO=64, SEQUENCE_LENGTH=128)
    losses = []
    for device in ("cuda", "cpu"):
        choices = trainer.choose(trainer.Machine.of(device))
        stepper = trainer.Stepper(trainer.build(dataclasses.replace(facts, device=device), choices), choices, 4)
        draws = [np.random.default_rng(step).integers(0, 61, (8, 129), dtype=np.int32) for step in range(10)]
        stepper.warm(iter(draws))
        losses.append([stepper.step(tokens, step / 10) for step, tokens in enumerate(draws)])
    np.testing.assert_allclose(losses[0], losses[1], rtol=3e-2)


def test_float16_trains_with_its_scaler(load_trainer, facts):
    trainer = load_trainer()
    choices = trainer.choose(trainer.Machine(device="cuda", capability=(7, 5)))
    assert choices.dtype == torch.float16
    stepper = trainer.Stepper(trainer.build(dataclasses.replace(facts, device="cuda"), choices), choices, 4)
    tokens = (np.arange(17) * 7 + np.arange(8)[:, None]).astype(np.int32) % 61
    losses = [stepper.step(tokens, 0.0) for _ in range(40)]
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.5 * losses[0]


def test_scoring_restores_what_was_trained(load_trainer, facts):
    trainer = load_trainer(HEAD_DIM=64, ASPECT_RATIO=64)
    facts = dataclasses.replace(facts, device="cuda")
    choices = trainer.choose(on_cuda(trainer))
    model = trainer.build(facts, choices)
    weights = {name: value.cpu().numpy() for name, value in model.state_dict().items()}
    logits = trainer.restore(weights, facts)
    tokens = np.random.default_rng(0).integers(0, 61, (4, 16), dtype=np.int32)
    losses = backend.losses(logits, tokens, tokens, "cuda")
    assert losses.shape == (4, 16)
    assert losses.mean() == pytest.approx(np.log(61), abs=0.05)


def test_the_device_is_named_and_its_peak_measured():
    torch.empty(2**22, device="cuda")
    peak = backend.peak_memory_mb("cuda")
    assert peak is not None
    assert peak >= 16
    assert backend.resolve("auto") == "cuda"
    assert backend.device_name("cuda")
