"""The fixed side: losses and logits against float64, devices that aren't there, and an environment without PyTorch."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

import backends
from backends.torch import backend
from core.records import UserError


def table_model(vocabulary: int, seed: int = 0):
    """Logits that depend on the token alone, and the float64 log-probabilities that they stand for."""
    table = np.random.default_rng(seed).standard_normal((vocabulary, vocabulary)).astype(np.float32) * 5
    exact = table.astype(np.float64)
    exact -= np.log(np.exp(exact).sum(-1, keepdims=True))
    on_device = torch.from_numpy(table)
    calls = []

    def logits(tokens_BT: torch.Tensor) -> torch.Tensor:
        calls.append(tuple(tokens_BT.shape))
        return on_device[tokens_BT.long()]

    return logits, exact, table, calls


def ids(rows: int, length: int, vocabulary: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, vocabulary, (rows, length), dtype=np.int32)


@pytest.mark.parametrize(("rows", "length"), [(1, 1), (5, 7), (33, 16)])
def test_losses_are_the_log_softmax_in_float64(rows, length):
    logits, exact, _, _ = table_model(50)
    tokens, targets = ids(rows, length, 50), ids(rows, length, 50, seed=2)
    losses = backend.losses(logits, tokens, targets, "cpu")
    assert losses.dtype == np.float32
    np.testing.assert_allclose(losses, -exact[tokens, targets], rtol=1e-5, atol=2e-6)


def test_losses_go_through_in_chunks_and_do_not_depend_on_them(monkeypatch):
    tokens, targets = ids(20, 8, 50), ids(20, 8, 50, seed=2)
    logits, _, _, calls = table_model(50)
    whole = backend.losses(logits, tokens, targets, "cpu")
    assert calls[0] == (1, 8)
    assert sum(rows for rows, _ in calls) == 20
    monkeypatch.setitem(backend.CHUNK_MB, "cpu", 3 * 8 * 50 * 4 / 2**20)
    logits, _, _, calls = table_model(50)
    np.testing.assert_array_equal(backend.losses(logits, tokens, targets, "cpu"), whole)
    assert max(rows for rows, _ in calls) == 3


def test_low_precision_logits_are_normalized_in_float32():
    logits, _, table, _ = table_model(50)
    tokens, targets = ids(4, 8, 50), ids(4, 8, 50, seed=2)
    losses = backend.losses(lambda t: logits(t).bfloat16(), tokens, targets, "cpu")
    rounded = torch.from_numpy(table).bfloat16().double().numpy()
    exact = rounded - np.log(np.exp(rounded).sum(-1, keepdims=True))
    np.testing.assert_allclose(losses, -exact[tokens, targets], rtol=1e-5, atol=1e-5)


def test_logits_at_positions_in_any_order():
    logits, _, table, _ = table_model(50)
    tokens = ids(9, 8, 50)
    positions = np.array([[8, 7], [0, 0], [3, 2], [3, 5], [0, 0]], np.int32)
    out = backend.logits_at(logits, tokens, positions, "cpu")
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out, table[tokens[positions[:, 0], positions[:, 1]]])


def test_logits_at_no_position():
    logits, _, _, _ = table_model(50)
    assert backend.logits_at(logits, ids(2, 8, 50), np.empty((0, 2), np.int32), "cpu").shape == (0, 50)


def test_a_device_that_is_not_there_is_an_error_that_names_those_that_are():
    assert backend.resolve("cpu") == "cpu"
    assert backend.resolve("auto") in {"cpu", "cuda", "mps"}
    with pytest.raises(UserError, match=r"'cuda:77' is not here.*cpu.*--device auto"):
        backend.resolve("cuda:77")


def test_the_environment_keeps_every_cache_below_its_folder(tmp_path: Path):
    cache, fetched = tmp_path / "cache", tmp_path / "fetched"
    environment = backend.environment(cache, fetched, "cpu")
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        assert Path(environment[name]).is_relative_to(cache)
    assert Path(environment["KERNELS_CACHE"]).is_relative_to(fetched)
    assert all(isinstance(value, str) for value in environment.values())


def test_the_supervisors_side_does_not_load_pytorch(tmp_path: Path):
    code = (
        "import sys, pathlib, backends; b = backends.get('torch'); assert b.missing() is None;"
        f"folder = pathlib.Path({str(tmp_path)!r});"
        f"b.environment(folder, folder, 'cpu'); backends.trainer_path('torch');"
        "assert 'torch' not in sys.modules"
    )
    root = Path(backends.__file__).parent.parent
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, timeout=60)


def test_seeding_seeds_every_generator():
    drawn = []
    for _ in range(2):
        backend.seed(11)
        drawn.append((torch.rand(1).item(), np.random.random()))  # noqa: NPY002  the generator a trainer may use
    assert drawn[0] == drawn[1]
    backend.seed(12)
    assert torch.rand(1).item() != drawn[0][0]


def test_the_device_and_versions_are_told():
    assert backend.device_name("cpu")
    assert backend.versions()["torch"] == torch.__version__
    assert backend.peak_memory_mb("cpu") is None


@pytest.mark.skipif(find_spec("kernels") is None, reason="kernels is not installed on this platform")
def test_flash_attention_3_that_was_never_fetched_is_not_there(tmp_path: Path):
    code = "from backends.torch.backend import flash3_cached; assert flash3_cached() is False"
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    environment = {**os.environ, **backend.environment(tmp_path, tmp_path, "cuda"), **offline}
    root = Path(backends.__file__).parent.parent
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, timeout=120, env=environment)


def test_nothing_is_fetched_where_there_is_no_hopper(tmp_path: Path):
    if torch.cuda.is_available() and torch.cuda.get_device_capability() == (9, 0):
        pytest.skip("this is a Hopper")
    folder = f"pathlib.Path({str(tmp_path)!r})"
    code = f"import pathlib; from backends.torch.backend import fetch; assert fetch({folder}) is None"
    root = Path(backends.__file__).parent.parent
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, timeout=120)
    assert not list(tmp_path.iterdir())


def test_an_eager_trial_loads_no_compiler(tmp_path: Path):
    """torch.optim and torch.compile pull in dynamo and sympy: seconds at the start of every trial."""
    code = """
import sys, torch, numpy as np
from core.records import Facts
import importlib.util
spec = importlib.util.spec_from_file_location("trainer", sys.argv[1])
trainer = importlib.util.module_from_spec(spec); sys.modules["trainer"] = trainer; spec.loader.exec_module(trainer)
trainer.DEPTH, trainer.ASPECT_RATIO, trainer.HEAD_DIM, trainer.SEQUENCE_LENGTH = 2, 16, 16, 16
facts = Facts(vocabulary=61, bos=0, seed=1, backend="torch", device="cpu", sequence_length=16)
choices = trainer.choose(trainer.Machine.of("cpu"))
stepper = trainer.Stepper(trainer.build(facts, choices), choices, 2)
stepper.warm(iter([np.zeros((4, 17), np.int32)] * 3))
stepper.step(np.zeros((4, 17), np.int32), 0.5)
weights = {name: value.numpy() for name, value in stepper.model.state_dict().items()}
trainer.restore(weights, facts)(torch.zeros(1, 16, dtype=torch.int32))
assert not {"torch._dynamo", "torch._inductor", "sympy"} & set(sys.modules)
"""
    root = Path(backends.__file__).parent.parent
    command = [sys.executable, "-c", code, str(backends.trainer_path("torch"))]
    subprocess.run(command, check=True, cwd=root, timeout=120)
