"""Sockets of a confined command: its processes reach each other below one folder, and nobody anywhere else."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import core
from core.sandbox import confine, paths, seccomp, tier
from core.sandbox.policy import SandboxPolicy, confined
from core.sandbox.spawn import ReapedProcess

pytestmark = [
    pytest.mark.skipif(not tier.available().enforced, reason=f"no sandbox here: {tier.available().why}"),
    pytest.mark.skipif(not seccomp.supported(), reason="the filter that asks is Linux's"),
]

# Connects to each address of the list in argv, and prints what became of it.
CONNECT = """
import json, os, socket, sys
own = socket.socket(socket.AF_UNIX)
own.bind("own")
own.listen(64)
os.mkdir("folder")
os.symlink("own", "link")
os.symlink(sys.argv[2], "folder/out")
if os.fork() == 0:  # each process is served, not the first alone
    client = socket.socket(socket.AF_UNIX)
    if error := client.connect_ex("own"):
        os._exit(error)
    client.send(b"from a child")
    os._exit(0)
failed = os.waitstatus_to_exitcode(os.wait()[1])
print(os.strerror(failed) if failed else own.accept()[0].recv(99).decode())
for address in json.loads(sys.argv[1]):
    client = socket.socket(socket.AF_UNIX)
    try:
        client.connect(address)
    except OSError as error:
        print(error.strerror)
        continue
    client.sendall(b"x")
    print(own.accept()[0].recv(9).decode() + " " + os.path.basename(client.getpeername()))
assert "AUTORESEARCH_SOCKETS" not in os.environ
print(sorted(os.listdir("/proc/self/fd"))[:3])
"""
WITHOUT_NAMESPACES = """
import sys
from core.sandbox import confine
confine.own_namespaces = lambda *_: 0
sys.exit(confine.main(sys.argv[1:]))
"""
with_loopback = pytest.mark.usefixtures("own_loopback")
REFUSED, MISSING = "Operation not permitted", "No such file or directory"


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A socket beside the folder, as another trial's is, and one of the same name in the abstract."""
    with socket.socket(socket.AF_UNIX) as path, socket.socket(socket.AF_UNIX) as abstract:
        path.bind(str(tmp_path / "theirs"))
        abstract.bind(f"\0{tmp_path}")
        for one in (path, abstract):
            one.listen()
        yield tmp_path / "theirs"


def start(folder: Path, code: str, *words: str, below: bool = True, isolated: bool = True) -> ReapedProcess:
    """A confined interpreter; not `isolated`: as where no namespaces can be had."""
    scratch = folder / "root" / "scratch"
    scratch.mkdir(parents=True)
    policy = SandboxPolicy(read=(*paths.system(), *paths.python()), write=(scratch,), devices=paths.device_files())
    command = confined([sys.executable, "-I", "-c", code, *words], policy, scratch.parent)
    if not isolated:
        command[1 : command.index(confine.__file__) + 1] = ["-c", WITHOUT_NAMESPACES]
    return ReapedProcess(
        command,
        folder=scratch.parent,
        private=scratch,
        usage=folder / "usage.json",
        cwd=scratch,
        environment={"TMPDIR": str(scratch), "PYTHONPATH": str(Path(core.__path__[0]).parent)},
        sockets=scratch if below else None,
    )


def finished(process: ReapedProcess) -> list[str]:
    with process:
        out, err = process.communicate(timeout=60)
        process.end()
    assert process.outcome().returncode == 0, err.decode()
    return out.decode().splitlines()


def printed(tmp_path: Path, addresses: list[str], target: str = "..", *, below: bool = True) -> list[str]:
    return finished(start(tmp_path, CONNECT, json.dumps(addresses), target, below=below))


def test_what_lies_below_is_reached_however_it_is_named(tmp_path: Path) -> None:
    whole = str(tmp_path / "root" / "scratch" / "own")
    addresses = ["own", whole, "./folder/../own", "link", "nothing", "folder", "folder/own"]
    first, *said, descriptors = printed(tmp_path, addresses)
    assert first == "from a child"
    assert said == ["x own"] * 4 + [MISSING, "Connection refused", MISSING]
    assert descriptors == "['0', '1', '2']"


def test_nothing_else_is_reached(tmp_path: Path, outside: Path, has_loopback: bool) -> None:
    addresses = [
        str(outside),
        "../../theirs",
        "../scratch/own",
        f"{tmp_path}/root/scratch/../../theirs",
        "folder/out",
        "folder/out/theirs",
        f"/proc/self/root{outside}",
    ]
    abstract = [f"\0{tmp_path}", "\0own"]
    _, *said, _ = printed(tmp_path, [*addresses, *abstract], str(outside))
    # In a network of its own there is nothing of the name, else the reaper connects to no abstract name.
    nothing = "Connection refused" if has_loopback else REFUSED
    assert said == [REFUSED] * len(addresses) + [nothing] * len(abstract)


@with_loopback
def test_an_abstract_name_is_the_commands_own(tmp_path: Path, outside: Path) -> None:
    """What another trial has bound can't be found out by binding it again: names would carry words between trials."""
    taken = f"\0{outside.parent}"
    with socket.socket(socket.AF_UNIX) as again, pytest.raises(OSError, match="in use"):
        again.bind(taken)
    code = """
import os, socket, sys
name = "\\0" + sys.argv[1]
server = socket.socket(socket.AF_UNIX)
server.bind(name)
server.listen()
socket.socket(socket.AF_UNIX).connect(name)
print(*(os.readlink(f"/proc/self/ns/{kind}") for kind in ("net", "ipc", "mnt")))
"""
    (there,) = finished(start(tmp_path, code, str(outside.parent)))
    here = [str(Path("/proc/self/ns", kind).readlink()) for kind in ("net", "ipc", "mnt")]
    assert not set(there.split()) & set(here)


# Serves at a port, and connects to it from a child and from more threads than it has room for.
SERVE = """
import os, socket, sys, threading, time
family = getattr(socket, sys.argv[1])
address = ("127.0.0.1" if family == socket.AF_INET else "::1", 0)
server = socket.create_server(address, family=family, backlog=1)
where = server.getsockname()[:2]
if os.fork() == 0:
    socket.create_connection(where, 20).send(b"from a child")
    os._exit(0)
end = server.accept()[0]
print(end.recv(99).decode())
end.close()

def client():
    with socket.socket(family) as one:  # it has no time limit, so that it waits in connect(2)
        one.connect(where)
        one.send(b"x")
        one.recv(1)  # until the server has it: what is closed before it was accepted may be lost

clients = [threading.Thread(target=client) for _ in range(6)]
for one in clients:
    one.start()
time.sleep(0.1)
assert socket.socket(family, socket.SOCK_DGRAM).connect_ex(where) == 0  # others are served meanwhile
print(b"".join(server.accept()[0].recv(1) for _ in clients).decode())
for one in clients:
    one.join()
a, b = (socket.socket(family, socket.SOCK_DGRAM) for _ in range(2))
a.bind(address)
b.sendto(b"by UDP", a.getsockname())
print(a.recv(99).decode(), socket.if_nameindex())
"""


@with_loopback
@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6"])
def test_its_processes_reach_each_other_by_tcp_and_udp(tmp_path: Path, family: str) -> None:
    if family == "AF_INET6" and not Path("/proc/net/if_inet6").exists():
        pytest.skip("no IPv6 here")
    assert finished(start(tmp_path, SERVE, family)) == ["from a child", "xxxxxx", "by UDP [(1, 'lo')]"]


TRY = """
import socket, sys
for address in (("127.0.0.1", int(sys.argv[1])), ("192.0.2.1", 80)):
    try:
        socket.create_connection(address, 10)
        print("connected")
    except OSError as error:
        print(error.strerror)
"""


@with_loopback
def test_a_server_of_this_machine_is_not_reached(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        socket.create_connection(("127.0.0.1", port)).close()
        server.accept()[0].close()
        assert finished(start(tmp_path, TRY, str(port))) == ["Connection refused", "Network is unreachable"]
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()


LISTEN = """
import socket
with socket.create_server(("127.0.0.1", 40123)) as server:
    server.settimeout(0)
    print("listens", flush=True)
    input()
    try:
        server.accept()
        print("was reached")
    except BlockingIOError:
        print("was left alone")
"""


@with_loopback
def test_two_commands_do_not_reach_each_other_and_share_no_ports(tmp_path: Path) -> None:
    first, second = (start(tmp_path / name, LISTEN) for name in ("first", "second"))
    try:
        for one in (first, second):
            assert one.stdout
            assert one.stdout.readline() == b"listens\n"
        assert finished(start(tmp_path / "third", TRY, "40123"))[0] == "Connection refused"
    finally:
        said = [one.communicate(b"\n", timeout=60)[0] for one in (first, second)]
        for one in (first, second):
            one.end()
    assert said == [b"was left alone\n"] * 2


def test_without_namespaces_the_internet_stays_refused_and_sockets_by_path_go_on(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        assert finished(start(tmp_path / "internet", TRY, port, isolated=False)) == [REFUSED, REFUSED]
    first, *said, _ = finished(start(tmp_path / "path", CONNECT, json.dumps(["own", "\0own"]), "..", isolated=False))
    assert (first, said) == ("from a child", ["x own", REFUSED])


def test_without_a_folder_nothing_at_all_is_reached(tmp_path: Path) -> None:
    assert printed(tmp_path, ["own"], below=False)[:2] == [REFUSED, REFUSED]
