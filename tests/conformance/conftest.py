"""Adapters that are made once, and the text that val_bpb is measured on."""

from __future__ import annotations

from pathlib import Path

import pytest
from conformance import adapters
from conformance.adapters import Adapter

from core.data import prepare
from core.data.scored import Rows


@pytest.fixture(scope="session", autouse=True)
def compiled(tmp_path_factory: pytest.TempPathFactory) -> None:
    """XLA's compile cache of the session's own: several rungs run the same small step, which takes long to compile."""
    if adapters.unavailable("jax") is None:
        import jax

        jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("xla")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def made(backend: str, folder: Path) -> Adapter:
    if reason := adapters.unavailable(backend):
        pytest.skip(reason)
    return adapters.adapter(backend, folder)


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    return made(adapters.REFERENCE, tmp_path_factory.mktemp("reference"))


@pytest.fixture(scope="session", params=adapters.OTHERS)
def other(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    return made(request.param, tmp_path_factory.mktemp("other"))


@pytest.fixture(scope="session", params=(adapters.REFERENCE, *adapters.OTHERS))
def wider(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    return adapters.Wider(made(request.param, tmp_path_factory.mktemp("wider")))


@pytest.fixture(scope="session")
def text(cache: Path, corpus_folder: Path) -> Rows:
    return prepare(f"folder:{corpus_folder}", adapters.VOCABULARY).scored("val", 8000).rows(64)
