"""The fixed side in MLX: losses and logits against float64, devices that aren't there, nothing loaded too early."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backends
from backends.mlx import backend
from core.records import UserError
from core.system import install


@pytest.fixture
def mx() -> Any:
    return pytest.importorskip("mlx.core", reason="MLX is not installed here", exc_type=ImportError)


def table_model(mx, vocabulary: int, seed: int = 0):
    """Logits that depend on the token alone, and the float64 log-probabilities that they stand for."""
    table = np.random.default_rng(seed).standard_normal((vocabulary, vocabulary)).astype(np.float32) * 5
    exact = table.astype(np.float64)
    exact -= np.log(np.exp(exact).sum(-1, keepdims=True))
    on_device = mx.array(table)
    calls = []

    def logits(tokens_BT):
        calls.append(tuple(tokens_BT.shape))
        return on_device[tokens_BT]

    return logits, exact, table, calls


def ids(rows: int, length: int, vocabulary: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, vocabulary, (rows, length), dtype=np.int32)


@pytest.mark.parametrize(("rows", "length"), [(1, 1), (5, 7), (33, 16)])
def test_losses_are_the_log_softmax_in_float64(mx, rows, length):
    logits, exact, _, _ = table_model(mx, 50)
    tokens, targets = ids(rows, length, 50), ids(rows, length, 50, seed=2)
    losses = backend.losses(logits, tokens, targets, "cpu")
    assert losses.dtype == np.float32
    np.testing.assert_allclose(losses, -exact[tokens, targets], rtol=1e-5, atol=2e-6)


def test_losses_go_through_in_chunks_and_do_not_depend_on_them(mx, monkeypatch):
    tokens, targets = ids(20, 8, 50), ids(20, 8, 50, seed=2)
    logits, _, _, calls = table_model(mx, 50)
    whole = backend.losses(logits, tokens, targets, "cpu")
    assert calls[0] == (1, 8)
    assert sum(rows for rows, _ in calls) == 20
    monkeypatch.setitem(backend.CHUNK_MB, "cpu", 3 * 8 * 50 * 4 / 2**20)
    logits, _, _, calls = table_model(mx, 50)
    np.testing.assert_array_equal(backend.losses(logits, tokens, targets, "cpu"), whole)
    assert max(rows for rows, _ in calls) == 3


def test_low_precision_logits_are_normalized_in_float32(mx):
    logits, _, table, _ = table_model(mx, 50)
    tokens, targets = ids(4, 8, 50), ids(4, 8, 50, seed=2)
    losses = backend.losses(lambda t: logits(t).astype(mx.bfloat16), tokens, targets, "cpu")
    rounded = np.array(mx.array(table).astype(mx.bfloat16).astype(mx.float32), np.float64)
    exact = rounded - np.log(np.exp(rounded).sum(-1, keepdims=True))
    np.testing.assert_allclose(losses, -exact[tokens, targets], rtol=1e-5, atol=1e-5)


def test_logits_at_positions_in_any_order(mx):
    logits, _, table, _ = table_model(mx, 50)
    tokens = ids(9, 8, 50)
    positions = np.array([[8, 7], [0, 0], [3, 2], [3, 5], [0, 0]], np.int32)
    out = backend.logits_at(logits, tokens, positions, "cpu")
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out, table[tokens[positions[:, 0], positions[:, 1]]])


def test_logits_at_no_position(mx):
    logits, _, _, _ = table_model(mx, 50)
    assert backend.logits_at(logits, ids(2, 8, 50), np.empty((0, 2), np.int32), "cpu").shape == (0, 50)


def test_a_device_that_is_not_there_is_an_error_that_names_those_that_are(mx):
    assert backend.resolve("cpu") == "cpu"
    assert backend.resolve("auto") in {"cpu", "gpu"}
    with pytest.raises(UserError, match=r"'tpu' is not here.*cpu.*--device auto"):
        backend.resolve("tpu")
    if not mx.is_available(mx.Device(mx.gpu)):
        with pytest.raises(UserError, match=r"'gpu' is not here"):
            backend.resolve("gpu")


def test_seeding_seeds_every_generator(mx):
    drawn = []
    for _ in range(2):
        backend.seed(11)
        drawn.append((mx.random.uniform().item(), np.random.random()))  # noqa: NPY002  the one a trainer may use
    assert drawn[0] == drawn[1]
    backend.seed(12)
    assert mx.random.uniform().item() != drawn[0][0]


def test_the_device_and_versions_are_told(mx):
    assert backend.device_name("cpu")
    assert backend.versions()["mlx"] == mx.__version__
    assert backend.peak_memory_mb("cpu") is None


def test_the_supervisors_side_does_not_load_mlx(tmp_path: Path):
    code = (
        "import sys, pathlib, backends; b = backends.get('mlx'); b.missing();"
        f"folder = pathlib.Path({str(tmp_path)!r});"
        f"b.environment(folder, folder, 'cpu'); backends.trainer_path('mlx');"
        "assert not any(name.startswith('mlx') for name in sys.modules)"
    )
    root = Path(backends.__file__).parent.parent
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, timeout=60)


def test_what_is_missing_is_told_with_its_mend(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(backend, "find_spec", lambda name: None)
    for platform, machine, expected in (
        ("linux", "x86_64", install.command("mlx")),
        ("darwin", "arm64", install.command("mlx")),
        ("darwin", "x86_64", "no build for"),
        ("win32", "AMD64", "no build for"),
    ):
        monkeypatch.setattr(backend.sys, "platform", platform)
        monkeypatch.setattr(backend.platform, "machine", lambda machine=machine: machine)
        told = backend.missing()
        assert told is not None
        assert expected in told
    (tmp_path / "core.cpython-311.so").touch()
    monkeypatch.setattr(backend, "_places", lambda: [tmp_path])
    monkeypatch.setattr(backend.sys, "platform", "linux")
    monkeypatch.setattr(backend.platform, "machine", lambda: "x86_64")
    told = backend.missing()
    assert told is not None
    assert "without a device" in told
    monkeypatch.setattr(backend.sys, "platform", "darwin")
    assert backend.missing() is None


def test_names_and_signatures_are_those_of_the_protocol():
    for name, function in inspect.getmembers(backends.base.Backend, inspect.isfunction):
        if not name.startswith("_"):
            ours, asked = inspect.signature(getattr(backend, name)), inspect.signature(function)
            assert list(ours.parameters) == list(asked.parameters)[1:], name
            assert ours.return_annotation == asked.return_annotation, name
