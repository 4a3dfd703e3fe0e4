"""Any command under a policy: what it may read, write and reach, and how what is hidden is left out."""

from __future__ import annotations

import dataclasses
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from core.sandbox import paths, selftest, tier
from core.sandbox.policy import SandboxPolicy, confined, readable

needs_a_tier = pytest.mark.skipif(not tier.available().enforced, reason=f"no sandbox here: {tier.available().why}")


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    found = {name: tmp_path / name for name in ("shown", "scratch", "outside")}
    for path in found.values():
        path.mkdir()
        (path / "file").write_text(path.name)
    return found


def run(code: str, policy: SandboxPolicy, folders: dict[str, Path]) -> subprocess.CompletedProcess[str]:
    """Runs Python under the policy; it finds the folders in `f`."""
    code = f"import os, socket, subprocess, sys\nf = { ({name: str(path) for name, path in folders.items()})!r}\n{code}"
    command = confined([sys.executable, "-I", "-c", code], policy, folders["scratch"])
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=folders["scratch"],
        timeout=60,
        env={"PATH": "/usr/bin"},
    )


def policy(folders: dict[str, Path], **options: Any) -> SandboxPolicy:
    base = SandboxPolicy(
        read=(*paths.system(), *paths.python(), folders["shown"]),
        write=(folders["scratch"],),
        devices=paths.device_files(),
    )
    return dataclasses.replace(base, **options)


@needs_a_tier
def test_a_command_reads_writes_and_returns_what_it_may(folders: dict[str, Path]) -> None:
    code = 'print(open(f["shown"] + "/file").read()); open("new", "w").write("x"); sys.exit(7)'
    done = run(code, policy(folders), folders)
    assert (done.returncode, done.stdout, done.stderr) == (7, "shown\n", "")
    assert {path.name for path in folders["scratch"].iterdir()} == {"file", "new"}  # and no policy is left


@needs_a_tier
@pytest.mark.parametrize(
    "code",
    [
        'open(f["outside"] + "/file")',
        'open(f["shown"] + "/file", "a")',
        'open(f["outside"] + "/new", "w")',
        "socket.create_connection(('127.0.0.1', 9))",
    ],
)
def test_a_command_is_refused_what_it_may_not(folders: dict[str, Path], code: str) -> None:
    done = run(code, policy(folders), folders)
    assert done.returncode == 1
    # What lies outside is on a read-only file system where the kernel lets a trial have mounts of its own.
    told = done.stderr.splitlines()[-1]
    assert told.startswith("PermissionError") or "Read-only file system" in told


@needs_a_tier
def test_the_network_and_attributes_are_there_if_asked_for(folders: dict[str, Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = (
            f"socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 5)\n"
            "open('tool', 'w').write('#!/bin/sh\\necho made'); os.chmod('tool', 0o755)\n"
            "print(subprocess.run(['./tool'], capture_output=True, text=True).stdout)\n"
        )
        done = run(code, policy(folders, network=True, attributes=True), folders)
    assert done.stdout.strip() == "made", done.stderr


@needs_a_tier
def test_what_is_hidden_below_a_readable_folder_stays_hidden(folders: dict[str, Path]) -> None:
    hidden = folders["shown"] / "a" / "b"
    hidden.mkdir(parents=True)
    for path in (hidden / "text", hidden.parent / "beside"):
        path.write_text("x")
    code = (
        'open(f["shown"] + "/file"); open(f["shown"] + "/a/beside")\n'
        'try:\n    open(f["shown"] + "/a/b/text")\nexcept OSError:\n    print("hidden")'
    )
    done = run(code, policy(folders, hidden=(hidden,), listed=(folders["shown"],)), folders)
    assert done.stdout == "hidden\n", done.stderr
    whole = run(code, policy(folders), folders)
    assert (whole.returncode, whole.stdout) == (0, "")


@needs_a_tier
def test_of_two_nested_paths_the_longer_decides(folders: dict[str, Path]) -> None:
    inner = folders["shown"] / "cache" / "fetched"
    inner.mkdir(parents=True)
    (inner / "kernel").write_text("x")
    (inner.parent / "text").write_text("x")
    base = policy(folders)
    refused = 'try:\n    open(f["shown"] + "/cache/text")\nexcept OSError:\n    print("hidden")'
    code = f'open(f["shown"] + "/cache/fetched/kernel")\n{refused}'
    nested = policy(folders, read=(*base.read, inner), hidden=(inner.parent,))
    assert run(code, nested, folders).stdout == "hidden\n"


@needs_a_tier
def test_what_cannot_be_confined_does_not_run(folders: dict[str, Path]) -> None:
    command = confined([sys.executable, "-c", "print('it ran')"], policy(folders), folders["scratch"])
    file = Path(command[4])
    file.write_text(json.dumps({**json.loads(file.read_text()), "extension": str(folders["shown"] / "file")}))
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (125, "")
    assert "the sandbox could not be applied: ImportError" in done.stderr


def test_turned_off_a_command_is_left_as_it_is(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tier, "_off", "--no-sandbox")
    assert confined(["a", "b"], policy(folders), folders["scratch"]) == ["a", "b"]
    assert (tier.here().name, tier.here().why) == ("none", "--no-sandbox")


def test_readable_names_the_siblings_of_what_is_hidden(tmp_path: Path) -> None:
    for path in ("a/b/hidden", "a/b/shown", "a/c", "d"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "a" / "link").symlink_to(tmp_path / "a" / "b" / "hidden")
    kept = readable([tmp_path], [tmp_path / "a" / "b" / "hidden"])
    assert {str(path.relative_to(tmp_path)) for path in kept} == {"a/b/shown", "a/c", "d"}
    assert readable([tmp_path], []) == [tmp_path]


@needs_a_tier
def test_the_check_finds_it_applied_and_finds_it_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert selftest.check().error == ""
    monkeypatch.setattr(selftest, "confined", lambda command, policy, folder: command)
    assert "read a file that it must not" in selftest.check().error


DEVICES = "null zero urandom nvidia0 nvidiactl nvidia-uvm dri/renderD128 kfd accel0 vfio/0 dxg".split()
NOT_DEVICES = "sda mem kmsg tty fuse kvm shm/x input/event0".split()


@pytest.mark.skipif(sys.platform != "linux", reason="device files of Linux")
def test_device_files_are_those_of_accelerators(tmp_path: Path) -> None:
    for name in (*DEVICES, *NOT_DEVICES):
        path = tmp_path / "dev" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    allowed = paths.device_files(str(tmp_path))
    for name in DEVICES:
        path = tmp_path / "dev" / name
        assert {path, *path.parents} & set(allowed), name
    for name in NOT_DEVICES:
        path = tmp_path / "dev" / name
        assert not {path, *path.parents} & set(allowed), name


def test_places_hold_the_interpreter_and_no_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = {path.resolve() for path in (*paths.system(), *paths.python())}
    for needed in (Path(sys.executable).resolve(), Path(json.__file__), Path(pytest.__file__)):
        assert given & {needed, *needed.parents}, needed
    for never in (Path("/"), Path.home(), Path("/tmp"), Path("/proc"), Path("/var"), Path("/etc"), Path("/dev")):
        assert never not in given


def test_a_package_is_found_wherever_it_is_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "botocore").mkdir(parents=True)
    (tmp_path / "base" / "lib" / "python3.11" / "site-packages" / "botocore").mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "elsewhere")])
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path / "base"))
    found = paths.copies_of("botocore")
    assert tmp_path / "elsewhere" / "botocore" in found
    assert any(path.is_relative_to(tmp_path / "base") for path in found)
