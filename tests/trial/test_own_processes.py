"""Processes that a trainer starts for itself: they find its classes, and reach each other and nobody else."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest
from support import trainer_text

from core.sandbox import tier

own_loopback = pytest.mark.usefixtures("own_loopback")
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
    assert "; the sandbox refuses networks" in trial.reason
    assert trial.reason.endswith("outside of the trial's own folder" if sys.platform == "linux" else "by path")


LOOPBACK = """
    import http.server, threading, urllib.request
    from multiprocessing.managers import BaseManager
    class Manager(BaseManager):
        pass
    Manager.register("numbers", lambda: [1, 2, 3])
    with Manager(("localhost", 0), b"key") as manager:
        again = Manager(manager.address, b"key")
        again.connect()
        assert again.numbers().copy() == [1, 2, 3]
    class Hello(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hello)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    assert urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/", timeout=20).read() == b"hello"
    server.shutdown()
""".strip()


@own_loopback
def test_tcp_among_its_own_processes(run: Run) -> None:
    trial = run(trainer_text(before=LOOPBACK))
    assert (trial.verdict, trial.reason) == ("scored", "")


@own_loopback
@pytest.mark.parametrize("to", ["('127.0.0.1', {port})", "('192.0.2.1', 80)", "('host.invalid', 80)"])
def test_a_network_that_is_not_reached_is_told_with_the_sandbox(run: Run, to: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        socket.create_connection(("127.0.0.1", port)).close()
        trial = run(trainer_text(before=f"import socket; socket.create_connection({to.format(port=port)}, 20)"))
    assert trial.verdict == "crash"
    assert trial.reason.endswith("; a trial reaches no network: on 127.0.0.1 only its own processes answer")


RANKS = """
def all_reduced(rank, world, into):
    import os, torch, torch.distributed as dist
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29500")
    dist.init_process_group("gloo", rank=rank, world_size=world)
    ranks = torch.tensor([float(rank)])
    dist.all_reduce(ranks)
    dist.destroy_process_group()
    into.put(float(ranks))
"""
DISTRIBUTED = """
    import multiprocessing
    context = multiprocessing.get_context("spawn")
    into = context.SimpleQueue()
    ranks = [context.Process(target=all_reduced, args=(rank, 3, into)) for rank in range(3)]
    for one in ranks:
        one.start()
    for one in ranks:
        one.join()
    assert [one.exitcode for one in ranks] == [0] * 3
    assert [into.get() for _ in ranks] == [3.0] * 3
""".strip()


@pytest.mark.long
@pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is not installed")
@own_loopback
def test_ranks_of_torch_distributed_reach_each_other(run: Run) -> None:
    trial = run(RANKS + trainer_text(before=DISTRIBUTED), startup_seconds=120.0)
    assert (trial.verdict, trial.reason) == ("scored", "")


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
