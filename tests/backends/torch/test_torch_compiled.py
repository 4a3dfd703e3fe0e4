"""The compiled step on a CPU: the same numbers as eager, and nothing recompiles while a schedule moves."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

pytestmark = [
    pytest.mark.long,
    # Inductor's own use of deprecated parts of PyTorch and of distutils is not ours to mend.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Reliance on distutils:UserWarning"),
]


def batch_of(rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 61, (rows, 17), dtype=np.int32)


def test_compiled_steps_agree_with_eager_ones_and_compile_once(load_trainer, facts, tmp_path, monkeypatch):
    from torch._inductor import config

    if sys.version_info < (3, 12):
        # Inductor imports setuptools, which refuses where another test's library has loaded Python's own distutils.
        monkeypatch.setenv("SETUPTOOLS_USE_DISTUTILS", "stdlib")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(config, "compile_threads", 1)  # no pool of workers that outlives the test
    trainer = load_trainer()
    if not trainer.Machine.of("cpu").compiler:
        pytest.skip("no C++ compiler on this machine")
    machine = trainer.Machine(device="cpu", compiler=True)
    compiled, eager = (
        trainer.Stepper(trainer.build(facts, choices), choices, 4)
        for choices in (trainer.choose(machine, "inductor"), trainer.choose(machine, "eager"))
    )
    compiled.warm(batch_of(4, seed) for seed in range(16))
    torch.compiler.set_stance("fail_on_recompile")
    try:
        for step in range(4):
            tokens = batch_of(8 + 4 * step, step)  # more slices are not another graph
            losses = [stepper.step(tokens, progress=step / 4) for stepper in (compiled, eager)]
            # The first is the same function; orthogonalization then blows rounding up.
            assert losses[0] == pytest.approx(losses[1], rel=1e-6 if step == 0 else 2e-3)
    finally:
        torch.compiler.set_stance("default")
