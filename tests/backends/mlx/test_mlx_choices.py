"""Dtype and compiler as a table of machines, and constants that are those of the reference in PyTorch."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import backends
from core.records import Choice, UserError
from core.trainer.constants import read_constants, read_tunables

mx = pytest.importorskip("mlx.core", reason="MLX is not installed here", exc_type=ImportError)


# name, facts, dtype, compiled. Metal brings its compiler along; on a CPU MLX compiles with g++.
TABLE = [
    ("apple", {"device": "gpu"}, "bfloat16", True),
    ("apple, command line tools", {"device": "gpu", "compiler": True}, "bfloat16", True),
    ("cpu, g++", {"device": "cpu", "compiler": True}, "float32", False),
    ("cpu, no g++", {"device": "cpu"}, "float32", False),
]


@pytest.mark.parametrize(("facts", "dtype", "compiled"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_a_machine_gets_what_it_can_run(load_trainer, facts, dtype, compiled):
    trainer = load_trainer()
    choices = trainer.choose(trainer.Machine(**facts))
    assert (choices.dtype, choices.compiled) == (getattr(mx, dtype), compiled)
    told = choices.with_reasons()
    assert told["dtype"].startswith(f"{dtype} (")
    assert told["compile"].startswith("mx.compile (" if compiled else "eager (")
    for name, text in told.items():
        choice = Choice.parse(text)
        assert choice.value, name
        assert len(choice.reason) > 1, f"{name} is told without a reason: {text}"


# In a process of its own: MLX looks for g++ once a process, and the next test's compiled step would find none.
TRAINS_EAGERLY = """
import importlib.util, json, sys
import numpy as np
from core.records import Facts
spec = importlib.util.spec_from_file_location("trainer", sys.argv[1])
trainer = sys.modules["trainer"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(trainer)
machine = trainer.Machine.of("cpu")
assert not machine.compiler
choices = trainer.choose(machine)
facts = Facts(vocabulary=61, bos=0, seed=3, backend="mlx", device="cpu", sequence_length=16)
stepper = trainer.Stepper(trainer.build(facts, choices), choices, 4)
tokens = ((np.arange(17) * 7 + np.arange(8)[:, None]) % 61).astype(np.int32)
print(json.dumps([float(stepper.step(tokens, 0.0)) for _ in range(40)]))
"""


def test_without_a_compiler_a_cpu_trains(load_trainer, tmp_path):
    """Eager steps build nothing, also where MLX's own layers are compiled functions."""
    built = tmp_path / "built"
    built.mkdir()
    done = subprocess.run(
        [sys.executable, "-P", "-c", TRAINS_EAGERLY, load_trainer().__file__],
        env={**os.environ, "PATH": "", "TMPDIR": str(built)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    losses = json.loads(done.stdout)
    assert losses[-1] < 0.5 * losses[0]
    assert list(built.rglob("*")) == []


def test_what_was_asked_for_is_had_or_is_an_error(load_trainer):
    trainer = load_trainer()
    with_compiler = trainer.Machine(device="cpu", compiler=True)
    assert trainer.choose(with_compiler, "compile").with_reasons()["compile"] == "mx.compile (asked for)"
    assert trainer.choose(trainer.Machine(device="gpu"), "compile").compiled
    assert trainer.choose(trainer.Machine(device="gpu"), "eager").with_reasons()["compile"] == "eager (asked for)"
    with pytest.raises(UserError, match=r"needs g\+\+ on the CPU.*COMPILE"):
        trainer.choose(trainer.Machine(device="cpu"), "compile")
    with pytest.raises(UserError, match="'inductor'"):
        trainer.choose(with_compiler, "inductor")


def test_constants_and_ranges_are_the_references():
    ours, reference = (backends.trainer_path(name).read_text(encoding="utf-8") for name in ("mlx", "torch"))
    assert read_tunables(ours) == read_tunables(reference)
    own = {name: value for name, value in read_constants(ours).items() if name != "COMPILE"}
    assert own == {name: read_constants(reference)[name] for name in own}
    assert read_constants(reference).keys() - read_constants(ours).keys() <= {"FLASH3"}


def test_limits_leave_a_device_that_recommends_none_as_it_is(load_trainer):
    trainer = load_trainer()
    limit = 2**40
    before = mx.set_memory_limit(limit)
    try:
        trainer.limit_memory("cpu")
    finally:
        after = mx.set_memory_limit(before)
    assert after == limit
