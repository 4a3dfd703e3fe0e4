"""Kernel, dtype and compiler as a table of machines: nothing picks what its device lacks."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from core.records import Choice, UserError

LINUX: dict[str, Any] = {"platform": "linux", "triton": True, "compiler": True}
WINDOWS: dict[str, Any] = {"platform": "win32", "triton": False, "compiler": False}
bf16, fp16, fp32 = torch.bfloat16, torch.float16, torch.float32

# name, facts, kernel, dtype, compiled
TABLE = [
    ("pascal", {"device": "cuda", "capability": (6, 1), **LINUX}, "sdpa", fp32, False),
    ("volta", {"device": "cuda", "capability": (7, 0), **LINUX}, "sdpa", fp16, True),
    ("turing", {"device": "cuda", "capability": (7, 5), **LINUX}, "sdpa", fp16, True),
    ("ampere", {"device": "cuda", "capability": (8, 0), **LINUX}, "flex", bf16, True),
    ("ampere, flash 3 cached", {"device": "cuda", "capability": (8, 0), "flash3": True, **LINUX}, "flex", bf16, True),
    ("ada", {"device": "cuda", "capability": (8, 9), **LINUX}, "flex", bf16, True),
    ("hopper, cached", {"device": "cuda", "capability": (9, 0), "flash3": True, **LINUX}, "flash-attn-3", bf16, True),
    ("hopper, not cached", {"device": "cuda", "capability": (9, 0), **LINUX}, "flex", bf16, True),
    ("blackwell", {"device": "cuda", "capability": (10, 0), "flash3": True, **LINUX}, "flex", bf16, True),
    ("b300", {"device": "cuda", "capability": (10, 3), **LINUX}, "flex", bf16, True),
    ("rtx 5090", {"device": "cuda", "capability": (12, 0), **LINUX}, "flex", bf16, True),
    ("gb10", {"device": "cuda", "capability": (12, 1), **LINUX}, "flex", bf16, True),
    ("gb10, no triton", {"device": "cuda", "capability": (12, 1), "compiler": True}, "sdpa", bf16, False),
    ("mi50", {"device": "cuda", "arch": "gfx906", **LINUX}, "sdpa", fp16, False),
    ("mi100", {"device": "cuda", "arch": "gfx908", **LINUX}, "flex", bf16, True),
    ("mi200", {"device": "cuda", "arch": "gfx90a", **LINUX}, "flex", bf16, True),
    ("mi300", {"device": "cuda", "arch": "gfx942", **LINUX}, "flex", bf16, True),
    ("mi300, no triton", {"device": "cuda", "arch": "gfx942", "compiler": True}, "sdpa", bf16, False),
    ("mi350", {"device": "cuda", "arch": "gfx950", **LINUX}, "flex", bf16, True),
    ("rdna2", {"device": "cuda", "arch": "gfx1030", **LINUX}, "sdpa", fp16, True),
    ("rdna3", {"device": "cuda", "arch": "gfx1100", **LINUX}, "sdpa", bf16, True),
    ("rdna3.5", {"device": "cuda", "arch": "gfx1151", **LINUX}, "sdpa", bf16, True),
    ("rdna4", {"device": "cuda", "arch": "gfx1201", **LINUX}, "sdpa", bf16, True),
    ("apple", {"device": "mps", "platform": "darwin", "compiler": True}, "sdpa", fp32, False),
    ("cpu", {"device": "cpu", **LINUX}, "sdpa", fp32, False),
    ("cpu, no compiler", {"device": "cpu", "platform": "linux"}, "sdpa", fp32, False),
    ("ampere, no compiler", {"device": "cuda", "capability": (8, 6), "triton": True}, "sdpa", bf16, False),
    ("windows, no triton", {"device": "cuda", "capability": (8, 9), **WINDOWS}, "sdpa", bf16, False),
    ("windows, hopper, no triton", {"device": "cuda", "capability": (9, 0), **WINDOWS}, "sdpa", bf16, False),
    ("windows, triton", {"device": "cuda", "capability": (8, 9), **WINDOWS, "triton": True}, "flex", bf16, True),
    ("windows, turing", {"device": "cuda", "capability": (7, 5), **WINDOWS}, "sdpa", fp16, False),
    ("windows, rtx 5090", {"device": "cuda", "capability": (12, 0), **WINDOWS}, "sdpa", bf16, False),
    ("windows, rdna4", {"device": "cuda", "arch": "gfx1201", **WINDOWS}, "sdpa", bf16, False),
    ("windows, cpu", {"device": "cpu", **WINDOWS}, "sdpa", fp32, False),
]


@pytest.mark.parametrize(
    ("facts", "kernel", "dtype", "compiled"), [row[1:] for row in TABLE], ids=[r[0] for r in TABLE]
)
def test_a_machine_gets_what_it_can_run(load_trainer, facts, kernel, dtype, compiled):
    trainer = load_trainer()
    choices = trainer.choose(trainer.Machine(**facts))
    assert (choices.kernel, choices.dtype, choices.compiled) == (kernel, dtype, compiled)
    for name, told in choices.with_reasons().items():
        choice = Choice.parse(told)
        assert choice.value, name
        assert len(choice.reason) > 1, f"{name} is told without a reason: {told}"


def test_no_machine_gets_what_it_lacks(load_trainer):
    """Every combination of facts, also those that the table leaves out."""
    trainer = load_trainer()
    devices: list[dict[str, Any]] = [{"device": "cpu"}, {"device": "mps", "platform": "darwin"}]
    capabilities = [(6, 1), (7, 0), (7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (10, 3), (11, 0), (12, 0), (12, 1)]
    devices += [{"device": "cuda", "capability": capability} for capability in capabilities]
    archs = "gfx900 gfx906 gfx908 gfx90a gfx942 gfx950 gfx1010 gfx1030 gfx1100 gfx1151 gfx1201".split()
    devices += [{"device": "cuda", "arch": arch} for arch in archs]
    platforms: list[dict[str, Any]] = [{"platform": "linux"}, {"platform": "win32"}]
    optional = [
        dict(zip(("triton", "compiler", "flash3"), on, strict=True)) for on in itertools.product((0, 1), repeat=3)
    ]
    for device, platform, has in itertools.product(devices, platforms, optional):
        machine = trainer.Machine(**{**platform, **device, **has})
        choices = trainer.choose(machine)
        matrix_cores = machine.capability >= (8, 0) or machine.arch in ("gfx908", "gfx90a", "gfx942", "gfx950")
        if choices.kernel == "flash-attn-3":
            assert machine.capability == (9, 0) and machine.flash3, machine
        if choices.kernel == "flex":
            assert choices.compiled and matrix_cores, machine
        if choices.dtype == bf16:
            assert matrix_cores or machine.arch.startswith(("gfx11", "gfx12")), machine
        if choices.dtype == fp16:
            assert machine.device == "cuda" and machine.capability != (6, 1), machine
        if choices.compiled:
            assert machine.triton and (machine.compiler or machine.platform == "win32"), machine
            assert machine.capability >= (7, 0) or machine.arch not in ("", "gfx900", "gfx906"), machine


@pytest.mark.parametrize("capability", [(8, 9), (12, 0)])
def test_windows_without_triton_trains(load_trainer, facts, capability):
    """Its kernel, dtype and eager steps, run on the CPU."""
    trainer = load_trainer()
    choices = trainer.choose(trainer.Machine(device="cuda", capability=capability, **WINDOWS))
    assert (choices.dtype, choices.compiled) == (bf16, False)
    stepper = trainer.Stepper(trainer.build(facts, choices), choices, 4)
    tokens = (np.arange(17) * 7 + np.arange(8)[:, None]).astype(np.int32) % 61
    losses = [stepper.step(tokens, 0.0) for _ in range(40)]
    assert losses[-1] < 0.5 * losses[0]


def test_the_reason_names_what_is_missing(load_trainer):
    trainer = load_trainer()
    told = trainer.choose(trainer.Machine(device="cuda", capability=(8, 9), platform="win32")).with_reasons()
    assert told["compile"] == "eager (Triton is not installed)"
    assert "flash-attn-3 needs Hopper" in told["kernel"]
    told = trainer.choose(trainer.Machine(device="cuda", capability=(9, 0), triton=True, compiler=True)).with_reasons()
    assert "not in the cache" in told["kernel"]
    told = trainer.choose(trainer.Machine(device="cuda", capability=(7, 5), triton=True, compiler=True)).with_reasons()
    assert "gradient scaler" in told["dtype"]
    told = trainer.choose(trainer.Machine(device="cuda", arch="gfx906", triton=True, compiler=True)).with_reasons()
    assert told["compile"] == "eager (Triton knows no Vega)"


def test_a_compiler_that_failed_is_not_used_and_the_reason_stays(load_trainer):
    trainer = load_trainer()
    machine = trainer.Machine(device="cuda", capability=(8, 9), triton=True, compiler=True)
    choices = trainer.choose(machine, failed="compiling failed: CppCompileError")
    assert not choices.compiled
    assert choices.kernel == "sdpa"  # flex without compilation would build whole score matrices
    assert choices.with_reasons()["compile"] == "eager (compiling failed: CppCompileError)"


def test_what_was_asked_for_is_had_or_is_an_error(load_trainer):
    trainer = load_trainer()
    with_compiler = trainer.Machine(device="cpu", compiler=True)
    assert trainer.choose(with_compiler, "inductor").with_reasons()["compile"] == "inductor (asked for)"
    assert trainer.choose(with_compiler, "eager").with_reasons()["compile"] == "eager (asked for)"
    with pytest.raises(UserError, match=r"no C\+\+ compiler was found.*COMPILE"):
        trainer.choose(trainer.Machine(device="cpu"), "inductor")
    with pytest.raises(UserError, match="'jit'"):
        trainer.choose(with_compiler, "jit")


def test_only_float16_gets_a_gradient_scaler(load_trainer, facts):
    trainer = load_trainer()
    turing = trainer.choose(trainer.Machine(device="cuda", capability=(7, 5)))
    ampere = trainer.choose(trainer.Machine(device="cuda", capability=(8, 0)))
    model = trainer.build(facts, trainer.choose(trainer.Machine(device="cpu")))
    assert trainer.Stepper(model, turing, 4).scaler.is_enabled()
    assert not trainer.Stepper(model, ampere, 4).scaler.is_enabled()


def test_this_machine_is_described_without_running_on_it(load_trainer):
    trainer = load_trainer()
    machine = trainer.Machine.of("cpu")
    assert machine.device == "cpu"
    assert trainer.choose(machine).dtype == torch.float32


def test_products_by_onednn_are_float32(load_trainer):
    """The setting that sends products to oneDNN must not cost their precision on a machine that gets it."""
    trainer = load_trainer()
    machine = trainer.Machine.of("cpu")
    if not machine.onednn:
        pytest.skip("this processor's products go to MKL or to what PyTorch was built with")
    matmul: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = matmul.fp32_precision
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(256, 256, generator=generator) for _ in range(2))
    exact = left.double() @ right.double()
    matmul.fp32_precision = "bf16"
    try:
        error = (left @ right - exact).norm() / exact.norm()
    finally:
        matmul.fp32_precision = before
    assert error < 2e-6  # float32: 3e-7; bfloat16 would be 3e-3
