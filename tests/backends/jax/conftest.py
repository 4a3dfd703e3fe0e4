"""Which backend the tests of this folder are about, and a compile cache of their own."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def compiled(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A compile cache of the session's own: several tests run the same small step, which takes seconds to compile."""
    jax = pytest.importorskip("jax", reason="JAX is not installed: uv pip install 'autoresearch[jax]'")
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("xla")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


@pytest.fixture
def backend() -> str:
    return "jax"
