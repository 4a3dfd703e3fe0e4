"""The frameworks' compilers at work inside a real trial: their workers, locks and files stay within its scratch."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from core.sandbox import tier
from core.trial import compile_cache

Run = Callable[..., Any]  # a Trial; Any, for what is None only after a failure

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not tier.available().enforced, reason=f"no sandbox here: {tier.available().why}"),
    pytest.mark.skipif(sys.platform == "win32" or shutil.which("g++") is None, reason="no g++ on the path"),
]

# Compiles before the clock; what it learns is counts, so that the fixed side of any backend can score them.
TRAINER = """
import os
import numpy as np
from core.trial import join

def main():
    trial = join(device_rows=4)
    {compile}
    outside = [path for path in {never!r} if os.path.exists(path)]
    assert not outside, outside
    counts = np.ones((trial.facts.vocabulary, trial.facts.vocabulary), np.float32)
    for tokens in trial.batches(16, 32):
        np.add.at(counts, (tokens[:, :-1], tokens[:, 1:]), 1.0)
    trial.finish({{"counts": counts}})

def restore(weights, facts):
    table = np.log(weights["counts"] / weights["counts"].sum(1, keepdims=True))
    {restore}
"""

TORCH = """
    import torch
    step = torch.compile(lambda x, w: torch.nn.functional.gelu(x @ w).softmax(-1).square().sum(), backend="inductor")
    x, w = torch.randn(32, 64), torch.randn(64, 64, requires_grad=True)
    plain = torch.nn.functional.gelu(x @ w).softmax(-1).square().sum()
    loss = step(x, w)
    loss.backward()
    assert abs(loss.item() - plain.item()) < 1e-4
    assert any(name.endswith(".so") for _, _, names in os.walk(os.environ["TORCHINDUCTOR_CACHE_DIR"]) for name in names)
""".strip()
JAX = """
    import jax, jax.numpy as jnp
    found = jax.jit(jax.value_and_grad(lambda w: jnp.sum(jax.nn.gelu(jnp.ones((8, 8)) @ w) ** 2)))(jnp.ones((8, 8)))
    assert float(found[0]) > 0
    assert os.listdir(os.environ["JAX_COMPILATION_CACHE_DIR"])
""".strip()
MLX = """
    import mlx.core as mx
    mx.set_default_device(mx.cpu)
    fused = mx.compile(lambda x: mx.exp(x) * mx.sin(x) + mx.tanh(x))
    x = mx.arange(1000) / 1000
    assert mx.allclose(fused(x), mx.exp(x) * mx.sin(x) + mx.tanh(x), atol=1e-5)
""".strip()
ANSWERS = {
    "torch": "import torch; table = torch.from_numpy(table); return lambda tokens: table[tokens.long()]",
    "jax": "import jax.numpy as jnp; table = jnp.asarray(table); return lambda tokens: table[tokens]",
    "mlx": "import mlx.core as mx; table = mx.array(table); return lambda tokens: table[tokens]",
}


@pytest.mark.parametrize(("backend", "code"), [("torch", TORCH), ("jax", JAX), ("mlx", MLX)])
def test_it_compiles_inside(run: Run, fresh_cache: Path, backend: str, code: str) -> None:
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    never = [f"/tmp/torchinductor_{name}" for name in ("root", "nobody", os.environ.get("USER", "root"))]
    text = TRAINER.format(
        compile=code, restore=ANSWERS[backend], never=[path for path in never if not Path(path).exists()]
    )
    limits = {"backend": backend, "startup_seconds": 300.0, "silence_seconds": 120.0}
    first = run(text, **limits)
    assert (first.verdict, first.reason) == ("scored", "")
    assert first.sandbox == tier.available().name
    stored = [path for path in compile_cache.store(backend).rglob("*") if path.is_file()]
    if backend != "mlx":  # keeps nothing between processes on a CPU
        assert stored
    again = run(text, **limits)
    assert (again.verdict, again.val_bpb) == ("scored", first.val_bpb)
    # Every key was found again, though the folder was another.
    assert {path for path in compile_cache.store(backend).rglob("*") if path.is_file()} == set(stored)
