"""Processes that a trainer starts for itself: they find its classes, and reach each other and nobody else."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest
from support import trainer_text

from core.sandbox import tier

Run = Callable[..., Any]  # a Trial; Any, for what is None only after a failure

pytestmark = [
    pytest.mark.real_start,  # they start as the interpreter above them did
    pytest.mark.skipif(sys.platform == "win32", reason="forkserver and descriptors over sockets are POSIX's"),
]

CLASSES = """
class Doubled:
    def __call__(self, value):
        return 2 * value

def answer(connection, given):
    connection.send([Doubled()(value) for value in given.recv()])
"""

# The second pipe's end is pickled into the first: that takes a socket by path, over which a descriptor travels.
STARTING = """
    import multiprocessing, os
    context = multiprocessing.get_context({method!r})
    (mine, theirs), (asking, asked) = context.Pipe(), context.Pipe()
    process = context.Process(target=answer, args=(theirs, asked))
    process.start()
    asking.send([1, 2, 3])
    assert mine.poll(20) and mine.recv() == [2, 4, 6]
    process.join()
    assert process.exitcode == 0
""".strip()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_process_that_is_not_forked_finds_the_trainers_own_classes(run: Run, method: str) -> None:
    if method == "forkserver" and sys.platform != "linux" and tier.available().enforced:
        pytest.skip("Seatbelt's rules, as nono writes them, refuse sockets by path")
    trial = run(trainer_text(before=STARTING.format(method=method)) + CLASSES)
    assert (trial.verdict, trial.reason) == ("scored", "")


@pytest.mark.skipif(not tier.available().enforced, reason=f"no sandbox here: {tier.available().why}")
def test_what_the_sandbox_refuses_is_told_with_the_sandbox(run: Run) -> None:
    trial = run(trainer_text(before="import socket; socket.socket(socket.AF_UNIX).connect('/run/docker.sock')"))
    assert trial.verdict == "crash"
    assert trial.reason.startswith("PermissionError: [Errno 1] Operation not permitted (line ")
    own = "outside of the trial's own folder" if sys.platform == "linux" else "by path"
    assert trial.reason.endswith(f"; the sandbox refuses networks, and sockets {own}")


DATA_LOADER = """
import torch
from torch.utils.data import DataLoader, Dataset

class Squares(Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        return torch.tensor([index * index])
"""
LOADING = """
    for context in ("fork", "forkserver"):
        loader = DataLoader(Squares(), batch_size=8, num_workers=2, multiprocessing_context=context)
        assert sum(int(batch.sum()) for batch in loader) == sum(n * n for n in range(64)), context
""".strip()


@pytest.mark.long
@pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is not installed")
@pytest.mark.skipif(sys.platform != "linux", reason="Seatbelt's rules, as nono writes them, refuse sockets by path")
def test_a_data_loader_with_workers_loads(run: Run) -> None:
    text = DATA_LOADER + trainer_text(before=LOADING)
    trial = run(text, startup_seconds=120.0)
    assert (trial.verdict, trial.reason) == ("scored", "")
