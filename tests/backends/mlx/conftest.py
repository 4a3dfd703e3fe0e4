"""The reference trainers as modules with other constants, small enough for a test. Neither framework loads here."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import backends
from core.agents.tunables import write
from core.records import Constant, Facts

SMALL: dict[str, Constant] = {
    "DEPTH": 2,
    "ASPECT_RATIO": 16,
    "HEAD_DIM": 16,
    "WINDOW_PATTERN": "SL",
    "SEQUENCE_LENGTH": 16,
    "TOTAL_BATCH_SIZE": 128,
    "DEVICE_BATCH_SIZE": 4,
}
VOCABULARY = 61


@pytest.fixture
def load_trainer(tmp_path: Path) -> Iterator[Callable[..., ModuleType]]:
    """Loads a backend's reference trainer with these constants over SMALL."""
    loaded: list[str] = []

    def load(backend: str = "mlx", **constants: Any) -> ModuleType:
        text = write(backends.trainer_path(backend).read_text(encoding="utf-8"), {**SMALL, **constants})
        name = f"{backend}_trainer_{len(loaded)}"
        path = tmp_path / f"{name}.py"
        path.write_text(text, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        loaded.append(name)
        spec.loader.exec_module(module)
        return module

    yield load
    for name in loaded:
        del sys.modules[name]


@pytest.fixture
def facts() -> Facts:
    """What a small trial on the CPU is told."""
    return Facts(vocabulary=VOCABULARY, bos=0, seed=3, backend="mlx", device="cpu", sequence_length=16)
