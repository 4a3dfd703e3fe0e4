"""How a trial's threads share the processors with other work, and what its record says of that."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import backends
from core.trial import environment
from core.trial.environment import THREAD_VARIABLES, TrialEnvironment

QUIET = {"OMP_PROC_BIND": "spread", "OMP_PLACES": "threads", "GOMP_SPINCOUNT": "30000"}
BUSY = {"OMP_WAIT_POLICY": "PASSIVE"}


@pytest.fixture
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user set no variable for threads; the tests' own configuration does."""
    for name in list(os.environ):
        if name.startswith(THREAD_VARIABLES):
            monkeypatch.delenv(name)
    monkeypatch.setattr(backends.get("torch").hardware, "cores", lambda: 2)  # type: ignore[attr-defined]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no libgomp to bind threads")
@pytest.mark.parametrize(
    ("device", "others", "settings"),
    [("cpu", 0.2, QUIET), ("cpu", 0.9, BUSY), ("cuda", 0.9, {}), ("cuda:1", 0.2, {}), ("mps", 0.9, {})],
)
def test_threads_of_pytorch_sleep_beside_other_work_and_else_spin_on_a_processor_each(
    nothing_set: None, monkeypatch: pytest.MonkeyPatch, device: str, others: float, settings: dict[str, str]
) -> None:
    monkeypatch.setattr(environment, "cores_of_others", lambda: others)
    chosen = TrialEnvironment(backend="torch", device=device).beside_others()
    assert chosen.thread_settings() == settings


def test_what_the_user_set_holds(nothing_set: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def look() -> float:
        raise AssertionError("nothing depends on it")

    monkeypatch.setattr(environment, "cores_of_others", look)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert TrialEnvironment(backend="torch", device="cpu").beside_others().thread_settings() == {"OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("backend", ["jax", "mlx", "numpy"])
def test_other_backends_need_no_settings(nothing_set: None, backend: str) -> None:
    assert TrialEnvironment(backend=backend, device="cpu", busy=True).thread_settings() == {}


def test_a_record_says_how_many_threads_there_were_and_what_was_set(run: Callable[..., Any]) -> None:
    trial = run(steps=1)
    assert trial.threads == 1
    assert trial.thread_settings.items() >= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}.items()


BINDING = """
import os
from core.trial.child.affinity import MainThread

whole = os.sched_getaffinity(0)
main_thread = MainThread()
os.sched_setaffinity(0, {min(whole)})  # as OpenMP does when a framework is loaded
main_thread.release()
assert os.sched_getaffinity(0) == whole, "compilers may use all processors"
main_thread.bind()
assert os.sched_getaffinity(0) == {min(whole)}, "training is bound again"
child = os.fork()
if child == 0:
    os._exit(0 if os.sched_getaffinity(0) == whole else 1)
assert os.waitpid(child, 0)[1] == 0, "a forked loader may use all processors"
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux binds threads")
def test_the_first_thread_is_bound_only_while_it_trains() -> None:
    done = subprocess.run([sys.executable, "-c", BINDING], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
