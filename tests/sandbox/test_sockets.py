"""Sockets of a confined command: its processes reach each other below one folder, and nobody anywhere else."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.sandbox import paths, seccomp, selftest, tier
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


def printed(tmp_path: Path, addresses: list[str], target: str = "..", *, below: bool = True) -> list[str]:
    scratch = tmp_path / "root" / "scratch"
    scratch.mkdir(parents=True)
    policy = SandboxPolicy(read=(*paths.system(), *paths.python()), write=(scratch,), devices=paths.device_files())
    command = [sys.executable, "-I", "-c", CONNECT, json.dumps(addresses), target]
    with ReapedProcess(
        confined(command, policy, scratch.parent),
        folder=scratch.parent,
        private=scratch,
        usage=tmp_path / "usage.json",
        cwd=scratch,
        environment={"TMPDIR": str(scratch)},
        sockets=scratch if below else None,
    ) as process:
        out, err = process.communicate(timeout=60)
        process.end()
    assert process.outcome().returncode == 0, err.decode()
    return out.decode().splitlines()


def test_what_lies_below_is_reached_however_it_is_named(tmp_path: Path) -> None:
    whole = str(tmp_path / "root" / "scratch" / "own")
    addresses = ["own", whole, "./folder/../own", "link", "nothing", "folder", "folder/own"]
    first, *said, descriptors = printed(tmp_path, addresses)
    assert first == "from a child"
    assert said == ["x own"] * 4 + [MISSING, "Connection refused", MISSING]
    assert descriptors == "['0', '1', '2']"


def test_nothing_else_is_reached(tmp_path: Path, outside: Path) -> None:
    addresses = [
        str(outside),
        "../../theirs",
        "../scratch/own",
        f"{tmp_path}/root/scratch/../../theirs",
        "folder/out",
        "folder/out/theirs",
        f"\0{tmp_path}",
        "\0own",
        f"/proc/self/root{outside}",
    ]
    _, *said, _ = printed(tmp_path, addresses, str(outside))
    assert said == [REFUSED] * len(addresses)


def test_an_abstract_name_is_the_commands_own(tmp_path: Path, outside: Path) -> None:
    """What another trial has bound can't be found out by binding it again: names would carry words between trials."""
    taken = f"\0{outside.parent}"
    with socket.socket(socket.AF_UNIX) as again, pytest.raises(OSError, match="in use"):
        again.bind(taken)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    policy = SandboxPolicy(read=(*paths.system(), *paths.python()), write=(scratch,), devices=paths.device_files())
    code = f"import os, socket; socket.socket(socket.AF_UNIX).bind({taken!r}); print(os.readlink('/proc/self/ns/net'))"
    command = confined([sys.executable, "-I", "-c", code], policy, tmp_path)
    done = subprocess.run(command, capture_output=True, text=True, cwd=scratch, timeout=60, check=False)
    if not selftest.check().shared_memory:
        pytest.skip("no namespaces of its own here: they take root, or user namespaces")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() != str(Path("/proc/self/ns/net").readlink())


def test_without_a_folder_nothing_at_all_is_reached(tmp_path: Path) -> None:
    assert printed(tmp_path, ["own"], below=False)[:2] == [REFUSED, REFUSED]
