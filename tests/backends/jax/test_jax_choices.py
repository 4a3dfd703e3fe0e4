"""Kernel, dtype and compiler as a table of machines: nothing picks what its device lacks."""

from __future__ import annotations

import pytest

from core.records import Choice, UserError

jnp = pytest.importorskip("jax.numpy", reason="JAX is not installed: uv pip install 'autoresearch[jax]'")

# name, facts, kernel, dtype
TABLE = [
    ("pascal", {"device": "cuda", "capability": (6, 1)}, "xla", "float32"),
    ("turing", {"device": "cuda", "capability": (7, 5)}, "xla", "float32"),
    ("ampere", {"device": "cuda", "capability": (8, 0)}, "cudnn", "bfloat16"),
    ("rtx 3090", {"device": "cuda", "capability": (8, 6)}, "cudnn", "bfloat16"),
    ("ada", {"device": "cuda", "capability": (8, 9)}, "cudnn", "bfloat16"),
    ("hopper", {"device": "cuda", "capability": (9, 0)}, "cudnn", "bfloat16"),
    ("blackwell", {"device": "cuda", "capability": (10, 0)}, "cudnn", "bfloat16"),
    ("b300", {"device": "cuda", "capability": (10, 3)}, "cudnn", "bfloat16"),
    ("rtx 5090", {"device": "cuda", "capability": (12, 0)}, "cudnn", "bfloat16"),
    ("gb10", {"device": "cuda", "capability": (12, 1)}, "cudnn", "bfloat16"),
    ("mi50", {"device": "rocm", "arch": "gfx906"}, "xla", "float32"),
    ("mi100", {"device": "rocm", "arch": "gfx908"}, "xla", "bfloat16"),
    ("mi200", {"device": "rocm", "arch": "gfx90a"}, "xla", "bfloat16"),
    ("mi300", {"device": "rocm", "arch": "gfx942"}, "xla", "bfloat16"),
    ("mi350", {"device": "rocm", "arch": "gfx950"}, "xla", "bfloat16"),
    ("rdna2", {"device": "rocm", "arch": "gfx1030"}, "xla", "float32"),
    ("rdna3", {"device": "rocm", "arch": "gfx1100"}, "xla", "bfloat16"),
    ("rdna3.5", {"device": "rocm", "arch": "gfx1151"}, "xla", "bfloat16"),
    ("rdna4", {"device": "rocm", "arch": "gfx1201"}, "xla", "bfloat16"),
    ("tpu", {"device": "tpu", "splash": True}, "splash", "bfloat16"),
    ("tpu, old jax", {"device": "tpu"}, "xla", "bfloat16"),
    ("cpu", {"device": "cpu"}, "xla", "float32"),
]
WIDE = {"HEAD_DIM": 128, "SEQUENCE_LENGTH": 256}


@pytest.mark.parametrize(("facts", "kernel", "dtype"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_a_machine_gets_what_it_can_run(load_trainer, facts, kernel, dtype):
    trainer = load_trainer(**WIDE)
    choices = trainer.choose(trainer.Machine(**facts))
    assert (choices.kernel, jnp.dtype(choices.dtype).name, choices.compiled) == (kernel, dtype, True)
    for name, told in choices.with_reasons().items():
        choice = Choice.parse(told)
        assert choice.value, name
        assert len(choice.reason) > 1, f"{name} is told without a reason: {told}"


@pytest.mark.parametrize(
    ("facts", "constants", "reason"),
    [
        ({"device": "tpu", "splash": True}, {"HEAD_DIM": 64, "SEQUENCE_LENGTH": 256}, "whole blocks of 128"),
        ({"device": "tpu", "splash": True}, {"HEAD_DIM": 128, "SEQUENCE_LENGTH": 64}, "whole blocks of 128"),
        ({"device": "cuda", "capability": (9, 0)}, {"HEAD_DIM": 192}, "heads of 8 to 128"),
        ({"device": "cuda", "capability": (9, 0)}, {"HEAD_DIM": 12}, "heads of 8 to 128"),
    ],
)
def test_a_kernel_is_not_chosen_for_shapes_that_it_does_not_take(load_trainer, facts, constants, reason):
    trainer = load_trainer(**constants)
    choices = trainer.choose(trainer.Machine(**facts))
    assert choices.kernel == "xla"
    assert reason in choices.kernel_reason


def test_a_kernel_that_failed_is_not_used_and_the_reason_stays(load_trainer):
    trainer = load_trainer(**WIDE)
    machine = trainer.Machine(device="cuda", capability=(9, 0))
    assert trainer.choose(machine, failed="cudnn failed: XlaRuntimeError").with_reasons()["kernel"] == (
        "xla (cudnn failed: XlaRuntimeError)"
    )


def test_what_was_asked_for_is_had_or_is_an_error(load_trainer):
    trainer = load_trainer()
    cpu = trainer.Machine.of("cpu")
    assert trainer.choose(cpu, "xla").with_reasons()["compile"] == "xla (asked for)"
    assert trainer.choose(cpu, "eager").with_reasons()["compile"] == "eager (asked for)"
    with pytest.raises(UserError, match="'inductor'"):
        trainer.choose(cpu, "inductor")
