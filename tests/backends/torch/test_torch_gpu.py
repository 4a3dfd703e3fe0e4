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
    # Inductor's own use of deprecated parts of PyTorch and of distutils is not ours to mend.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Reliance on distutils:UserWarning"),
]
bf16, fp16 = torch.bfloat16, torch.float16


def on_cuda(trainer):
    return trainer.Machine.of("cuda")


def skip_without(trainer, dtype: torch.dtype) -> None:
    if dtype == bf16 and trainer.choose_dtype(on_cuda(trainer))[0] != bf16:
        pytest.skip("this device lacks bfloat16")


def learnable(rows: int, length: int, step: int = 0) -> np.ndarray:
    return ((np.arange(length) * 7 + np.arange(rows)[:, None] + step) % 61).astype(np.int32)


@pytest.mark.parametrize(("kernel", "dtype"), [("sdpa", bf16), ("sdpa", fp16), ("flex", bf16), ("flash-attn-3", bf16)])
def test_a_kernel_is_the_masked_softmax(load_trainer, kernel, dtype):
    """Forward and backward, with a window of half the sequence, with a short one and with none."""
    trainer = load_trainer(SEQUENCE_LENGTH=256, HEAD_DIM=64)
    machine = on_cuda(trainer)
    skip_without(trainer, dtype)
    if kernel == "flash-attn-3" and not machine.flash3:
        pytest.skip("FlashAttention-3 needs Hopper and its kernel in the cache")
    if kernel == "flex" and trainer.choose(machine).kernel == "sdpa":
        pytest.skip("flex needs Ampere or MI, Triton and a compiler")
    generator = torch.Generator("cuda").manual_seed(0)
    shape = (2, 256, 2, 64)
    q, k, v, weight = (torch.randn(shape, device="cuda", generator=generator).to(dtype) for _ in range(4))

    def outputs(attend, *inputs):
        leaves = [x.detach().requires_grad_() for x in inputs]
        out = attend(*leaves)
        return out, *torch.autograd.grad((out * weight).sum(), leaves)

    for window in (128, 16, None):
        with torch.device("cuda"):
            attend = trainer.attention(kernel, window)
        attend = torch.compile(attend, dynamic=False) if kernel == "flex" else attend
        expected = outputs(trainer.attention("sdpa", window), q.float(), k.float(), v.float())
        for found, exact in zip(outputs(attend, q, k, v), expected, strict=True):
            torch.testing.assert_close(found.float(), exact, atol=3e-2, rtol=3e-2)


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


@pytest.mark.parametrize(("capability", "dtype"), [((7, 5), fp16), ((8, 0), bf16)], ids=["float16", "bfloat16"])
def test_sdpa_trains_eagerly_in_low_precision(load_trainer, facts, capability, dtype):
    """float16 with its gradient scaler. So trains a machine without Triton."""
    trainer = load_trainer()
    skip_without(trainer, dtype)
    choices = trainer.choose(trainer.Machine(device="cuda", capability=capability))
    assert (choices.kernel, choices.dtype, choices.compiled) == ("sdpa", dtype, False)
    stepper = trainer.Stepper(trainer.build(dataclasses.replace(facts, device="cuda"), choices), choices, 4)
    assert stepper.scaler.is_enabled() == (dtype == fp16)
    losses = [stepper.step(learnable(8, 17), 0.0) for _ in range(40)]
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.5 * losses[0]


def test_inductors_steps_follow_eager_ones(load_trainer, facts):
    """The kernel that the device gets with a compiler, windows included, against sdpa by itself."""
    trainer = load_trainer(HEAD_DIM=64, ASPECT_RATIO=64, SEQUENCE_LENGTH=256)
    machine = on_cuda(trainer)
    compiled = trainer.choose(machine)
    if not compiled.compiled:
        pytest.skip(f"inductor can't be had: {compiled.compile_reason}")
    curves = []
    for choices in (compiled, trainer.choose(dataclasses.replace(machine, flash3=False), "eager")):
        stepper = trainer.Stepper(trainer.build(dataclasses.replace(facts, device="cuda"), choices), choices, 4)
        stepper.warm(learnable(4, 257, step) for step in range(2))
        curves.append([stepper.step(learnable(8, 257, step), step / 20) for step in range(20)])
    assert curves[0][-1] < 0.5 * curves[0][0]
    np.testing.assert_allclose(curves[0], curves[1], atol=0.05)


def test_rows_arrive_whole_while_their_memory_is_written_over(load_trainer, facts):
    """Copies from pinned memory wait behind a busy device, and the supervisor's slots are soon used again."""
    trainer = load_trainer()
    choices = trainer.choose(on_cuda(trainer), "eager")
    stepper = trainer.Stepper(trainer.build(dataclasses.replace(facts, device="cuda"), choices), choices, 4)
    busy = torch.ones(4096, 4096, device="cuda")
    for _ in range(20):
        busy = busy @ busy / 4096
    slot = np.empty((64, 2049), np.int32)
    arriving = []
    for step in range(40):
        slot[:] = step
        arriving.append(stepper.to_device(slot))
    slot[:] = -1
    assert [rows.unique().tolist() for rows in arriving] == [[step] for step in range(40)]
    assert torch.all(busy == 1.0)


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
