"""The fixed side: losses and logits against float64, devices that aren't there, and an environment without JAX."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import backends
from backends.jax import backend
from core.records import UserError
from core.system import install

jax = pytest.importorskip("jax", reason="JAX is not installed: uv pip install 'autoresearch[jax]'")


def table_model(vocabulary: int, *, traced: bool = True):
    """Logits that depend on the token alone, and the float64 log-probabilities that they stand for."""
    table = np.random.default_rng(0).standard_normal((vocabulary, vocabulary)).astype(np.float32) * 5
    exact = table.astype(np.float64)
    exact -= np.log(np.exp(exact).sum(-1, keepdims=True))
    on_device = jax.device_put(table, jax.devices("cpu")[0])
    calls = []

    def logits(tokens_BT):
        calls.append(tuple(tokens_BT.shape))
        return on_device[tokens_BT] if traced else jax.device_put(table[np.asarray(tokens_BT)], tokens_BT.device)

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


def test_losses_go_through_in_chunks_of_one_shape(monkeypatch):
    """A chunk that is not full is filled up, because every shape is compiled once more; nothing of it is returned."""
    tokens, targets = ids(20, 8, 50), ids(20, 8, 50, seed=2)
    logits, _, _, _ = table_model(50)
    whole = backend.losses(logits, tokens, targets, "cpu")
    monkeypatch.setitem(backend.CHUNK_MB, "cpu", 3 * 8 * 50 * 4 / 2**20)
    logits, _, _, calls = table_model(50)
    np.testing.assert_allclose(backend.losses(logits, tokens, targets, "cpu"), whole, rtol=1e-6)
    assert calls[1:] == [(3, 8)] * 7, "the first only asks for the width"


def test_a_short_request_is_not_filled_up_to_a_whole_chunk():
    """A chunk of the CPU holds thousands of these rows; scoring two must not cost as much."""
    logits, _, _, calls = table_model(50)
    backend.losses(logits, ids(2, 8, 50), ids(2, 8, 50), "cpu")
    backend.logits_at(logits, ids(5, 8, 50), np.array([[4, 7]], np.int32), "cpu")
    assert max(rows for rows, _ in calls) <= 8


def test_questions_of_changing_size_share_one_shape(monkeypatch):
    logits, _, table, calls = table_model(50)
    for chunk_rows in (16, 1000):
        monkeypatch.setitem(backend.CHUNK_MB, "cpu", chunk_rows * 8 * 50 * 4 / 2**20)
        calls.clear()
        for rows in (60, 16, 11, 2):
            tokens = ids(rows, 8, 50)
            positions = np.stack((np.arange(rows), np.arange(rows) % 8), 1).astype(np.int32)
            out = backend.logits_at(logits, tokens, positions, "cpu")
            np.testing.assert_array_equal(out, table[tokens[positions[:, 0], positions[:, 1]]])
        assert set(calls) - {(1, 8)} == {(min(chunk_rows, backend.ROWS), 8)}, "one row only tells the width"


def test_low_precision_logits_are_normalized_in_float32():
    logits, _, table, _ = table_model(50)
    tokens, targets = ids(4, 8, 50), ids(4, 8, 50, seed=2)
    losses = backend.losses(lambda t: logits(t).astype("bfloat16"), tokens, targets, "cpu")
    rounded = np.asarray(jax.numpy.asarray(table, "bfloat16"), np.float64)
    exact = rounded - np.log(np.exp(rounded).sum(-1, keepdims=True))
    np.testing.assert_allclose(losses, -exact[tokens, targets], rtol=1e-5, atol=1e-5)


def test_logits_that_no_tracer_can_pass_through_are_scored_too():
    logits, exact, _, _ = table_model(50, traced=False)
    tokens, targets = ids(5, 7, 50), ids(5, 7, 50, seed=2)
    losses = backend.losses(logits, tokens, targets, "cpu")
    np.testing.assert_allclose(losses, -exact[tokens, targets], rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("chunk_rows", [1, 2, 1000])
def test_logits_at_positions_in_any_order(monkeypatch, chunk_rows):
    monkeypatch.setitem(backend.CHUNK_MB, "cpu", chunk_rows * 8 * 50 * 4 / 2**20)
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
    assert backend.resolve("auto") in {"cpu", "cuda", "rocm", "tpu"}
    for device in ("cuda:77", "abacus"):
        with pytest.raises(UserError, match=rf"'{device}' is not here.*cpu.*--device auto"):
            backend.resolve(device)


def test_the_environment_keeps_the_compile_cache_below_the_folder(tmp_path: Path):
    environment = backend.environment(tmp_path, tmp_path, "auto")
    assert Path(environment["JAX_COMPILATION_CACHE_DIR"]).is_relative_to(tmp_path)
    assert environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "0"
    assert environment["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false", "two processes share the device"
    assert "JAX_PLATFORMS" not in environment
    assert backend.environment(tmp_path, tmp_path, "cpu")["JAX_PLATFORMS"] == "cpu"
    assert all(isinstance(value, str) for value in environment.values())


def test_the_supervisors_side_does_not_load_jax(tmp_path: Path):
    code = (
        "import sys, pathlib, backends; b = backends.get('jax'); assert b.missing() is None;"
        f"folder = pathlib.Path({str(tmp_path)!r});"
        f"b.environment(folder, folder, 'cpu'); backends.trainer_path('jax');"
        "assert not {'jax', 'jaxlib', 'flax', 'optax'} & set(sys.modules)"
    )
    root = Path(backends.__file__).parent.parent
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, timeout=60)


def test_what_is_missing_is_named(monkeypatch):
    def find(name: str) -> object:
        return None if name in ("flax", "optax") else object()

    monkeypatch.setattr(backend, "find_spec", find)
    assert backend.missing() == f"flax, optax not installed. Install with: {install.command('jax')}"


def test_seeding_seeds_every_generator():
    drawn = []
    for _ in range(2):
        backend.seed(11)
        drawn.append(np.random.random())  # noqa: NPY002  the generator a trainer may use
    assert drawn[0] == drawn[1]


def test_the_device_and_versions_are_told():
    assert backend.device_name("cpu")
    assert backend.versions()["jax"] == jax.__version__
    assert {"jaxlib", "flax", "optax"} <= backend.versions().keys()
    assert backend.peak_memory_mb("cpu") is None


def test_what_xla_says_of_too_little_memory_is_known():
    with pytest.raises(jax.errors.JaxRuntimeError) as told:
        jax.numpy.zeros((2**45,), "int8").block_until_ready()
    assert backend.out_of_memory(f"JaxRuntimeError: {told.value}")
