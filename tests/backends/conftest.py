"""Reference trainers as modules with other constants, small enough for a test. No framework loads here."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import backends
from core.records import Constant, Facts
from core.trainer.constants import write_constants

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
def load_trainer(tmp_path: Path, backend: str) -> Iterator[Callable[..., ModuleType]]:
    """Loads a reference trainer, the folder's own unless another is named, with these constants over SMALL.

    `full=True` leaves what is not named as the file has it.
    """
    loaded: list[str] = []

    def load(of: str = backend, *, full: bool = False, **constants: Any) -> ModuleType:
        text = backends.trainer_path(of).read_text(encoding="utf-8")
        text = write_constants(text, constants if full else {**SMALL, **constants})
        name = f"{of}_trainer_{len(loaded)}"
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
def facts(backend: str) -> Facts:
    """What a small trial on the CPU is told."""
    return Facts(vocabulary=VOCABULARY, bos=0, seed=3, backend=backend, device="cpu", sequence_length=16)
