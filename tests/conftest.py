"""What every folder of tests shares: one thread a process, a cache of the session's own, and a small corpus."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Set before NumPy or a framework is loaded, and passed on to trials: what the tests compute is small, and threads that
# wait for each other by spinning, in several processes on few cores, take most of the time.
THREADS = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
}
for variable, value in THREADS.items():
    os.environ.setdefault(variable, value)

# pytest-xdist's workers have one; what is printed to a pipe is then 80 columns wide.
os.environ.pop("COLUMNS", None)

from forking import real_start, starts  # noqa: E402  as the next one it loads NumPy
from synthetic import synthetic_documents  # noqa: E402

from core.sandbox import selftest, tier  # noqa: E402

__all__ = ["real_start", "starts"]

DOCUMENTS = 300
# LLVM's optimizations take longer than what they speed up: a test runs a step of a small model a few times.
XLA_FLAGS = "--xla_cpu_multi_thread_eigen=false --xla_backend_optimization_level=0"

# A shell starts what runs in the background deaf to Ctrl-C, and nohup deafens it to a closed terminal; deafness is
# inherited by what the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
if sys.platform != "win32":
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--real-starts", action="store_true", help="fork no trial: each process starts as a real one does")


def pytest_configure(config: pytest.Config) -> None:
    if config.option.markexpr != "gpu":  # where XLA compiles for a device, it does so as in a real trial
        os.environ.setdefault("XLA_FLAGS", XLA_FLAGS)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """AUTORESEARCH_CACHE for the session (one folder for each xdist worker); no test touches a person's own."""
    root = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTORESEARCH_CACHE", str(root))
        yield root


@pytest.fixture(scope="session")
def has_loopback() -> bool:
    """Whether confined processes have a loopback of their own."""
    return sys.platform == "linux" and tier.available().enforced and selftest.check().loopback


@pytest.fixture
def own_loopback(has_loopback: bool) -> None:
    """Skips the test where they have none."""
    if not has_loopback:
        pytest.skip("no network namespaces here: they take root, or user namespaces")


@pytest.fixture
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """AUTORESEARCH_CACHE for one test that needs an empty one, or that damages it."""
    root = tmp_path / "cache"
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(root))
    return root


@pytest.fixture
def scratches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in which this process makes its temporary files."""
    path = tmp_path / "scratches"
    path.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(path))
    return path.resolve()


@pytest.fixture(scope="session")
def corpus_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 300 documents, 450 kB, of made-up words with Zipf's frequencies; some not in ASCII, some with emoji."""
    root = tmp_path_factory.mktemp("corpus")
    texts = synthetic_documents(DOCUMENTS, seed=7)
    for number, text in enumerate(texts[:200]):
        suffix = ".md" if number % 10 == 0 else ".txt"
        path = root / f"section-{number % 7}" / f"document-{number:03d}{suffix}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode())
    lines = [json.dumps({"text": text, "number": number}) for number, text in enumerate(texts[200:])]
    (root / "rest.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root
