"""Confines its own process and becomes the command: `python -I -S confine.py POLICY COMMAND...`.

POLICY is the file that `policy.confined` wrote; it is deleted. This file uses the standard library only and runs
without site-packages, because each import adds to the start-up of every trial. If any part of the confinement fails,
the command does not run: exit status 125, with the reason on stderr.
"""

from __future__ import annotations

import ctypes
import importlib.machinery
import importlib.util
import json
import os
import struct
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

NOT_CONFINED = 125  # exit status
_KEPT_CAPABILITIES = (1, 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH: root may not own the files that it reads
_OOM_SCORE = 500  # of 1000: when memory runs short, the kernel ends a trial before the process that watches it

_NEW_MOUNTS, _NEW_IPC, _NEW_USER, _NEW_NETWORK = 0x00020000, 0x08000000, 0x10000000, 0x40000000  # CLONE_*
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 1  # SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP
_RECURSIVE_PRIVATE = 0x4000 | 0x40000  # MS_REC | MS_PRIVATE
_NO_SUID_DEVICES_EXEC = 0x2 | 0x4 | 0x8
_BIND = 0x1000
# mount_setattr(2): the number is the same on every architecture.
_MOUNT_SETATTR, _HERE, _RECURSIVE, _READ_ONLY = 442, -100, 0x8000, 1
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # landlock(7): the same numbers on every architecture
_READ_FILE, _PATH_BENEATH = 0x4, 1
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_NEW_LISTENER, _WAIT_KILLABLE = 0x8, 0x20  # SECCOMP_FILTER_FLAG_*
_SOCKETS = "AUTORESEARCH_SOCKETS"  # as in `sockets.py`


class ConfinementError(Exception):
    """A part of the confinement could not be applied."""


def main(arguments: list[str]) -> int:
    """Confines this process and becomes the command. Returns only if that failed."""
    try:
        policy = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
        Path(arguments[0]).unlink()
        confine(policy)
        os.execv(arguments[1], arguments[1:])
    except Exception as error:  # noqa: BLE001  whatever failed, the command must not run
        print(f"the sandbox could not be applied: {type(error).__name__}: {error}", file=sys.stderr)
    return NOT_CONFINED


def confine(policy: dict[str, Any]) -> None:
    """Applies the policy to this process, which must have one thread. Can't be undone."""
    _limit(policy["file_bytes"])
    linux = sys.platform == "linux"
    shared = policy["shared_memory"]
    fixed = loopback = False
    reaper = _reaper()
    if linux:
        _prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL: as the reaper set it, for new credentials clear it
        if policy["oom_first"]:
            Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE))
        network = 0 if policy["network"] else _NEW_NETWORK
        new = own_namespaces(shared, [_NEW_MOUNTS | _NEW_IPC | network, _NEW_MOUNTS | network, _NEW_MOUNTS])
        if new:
            policy["write"].append(shared)
            fixed = _fix_the_rest(policy["write"])
        loopback = bool(new & _NEW_NETWORK) and _loopback_up()
    nono = _extension(policy["extension"])
    capabilities = nono.CapabilitySet()
    for path in [*policy["read"], *policy["listed"]]:
        _allow(capabilities, path, nono.AccessMode.READ)
    for path in [*policy["write"], *policy["devices"]]:
        _allow(capabilities, path, nono.AccessMode.READ_WRITE)
    if not policy["network"] and not loopback:
        capabilities.block_network()
    for rule in policy["seatbelt"]:
        capabilities.platform_rule(rule)
    ruleset = _readable([*policy["narrowed"], *policy["write"], *policy["devices"]]) if linux else None
    nono.apply(capabilities)
    if ruleset is not None:
        _syscall("restrict_self", _RESTRICT_SELF, ruleset, 0)
        os.close(ruleset)
        _drop_capabilities()
        programs, which = policy["seccomp"], "fixed" if fixed else ""
        if programs[which]:
            asking = bytes.fromhex(programs[f"{which} {'loopback' if loopback else 'ask'}".strip()])
            if reaper is None or not _filter_that_asks(asking, reaper):
                _filter(bytes.fromhex(programs[which]))
    if reaper is not None:
        reaper.close()


def own_namespaces(shared: str, choices: Sequence[int]) -> int:
    """Linux: gives this process and its children namespaces of their own, and an empty file system at `shared`.

    `shared` is /dev/shm. Returns the first of the choices that works: CLONE_NEW* flags, of mounts at least. That takes
    root or user namespaces; without either it returns 0, and there is no shared memory by name and no loopback.
    """
    if os.getuid() == 0:
        for new in choices:
            if _cover(shared, new):
                return new
    for new in choices:
        # Where user namespaces are half allowed, the first step works and can't be undone: so a child tries it first.
        child = os.fork()
        if child == 0:
            os._exit(0 if _cover(shared, new | _NEW_USER) else 1)
        if os.waitpid(child, 0)[1] == 0:
            return new if _cover(shared, new | _NEW_USER) else 0
    return 0


def _loopback_up() -> bool:
    """Brings up `lo`, the only interface of a new network namespace. It then has 127.0.0.1 and ::1."""
    import _socket
    import fcntl

    lo = struct.pack("=16sh22x", b"lo", 0)  # struct ifreq: name, flags
    try:
        endpoint = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
        _, flags = struct.unpack("=16sh22x", fcntl.ioctl(endpoint, _GET_FLAGS, lo))
        fcntl.ioctl(endpoint, _SET_FLAGS, struct.pack("=16sh22x", b"lo", flags | _UP))
        endpoint.close()
    except OSError:
        return False
    return True


def _cover(folder: str, namespaces: int) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    identity = {"setgroups": "deny", "uid_map": f"{user} {user} 1", "gid_map": f"{group} {group} 1"}
    if libc.unshare(namespaces) != 0:
        return False
    if namespaces & _NEW_USER:
        try:
            for name, text in identity.items():
                Path("/proc/self", name).write_text(text)
        except OSError:
            return False
    if libc.mount(b"none", b"/", None, _RECURSIVE_PRIVATE, None) != 0:
        return False
    return bool(libc.mount(b"tmpfs", folder.encode(), b"tmpfs", _NO_SUID_DEVICES_EXEC, b"size=25%,mode=1777") == 0)


def _fix_the_rest(writable: Iterable[str]) -> bool:
    """Makes all but these folders read-only, with their times, modes and attributes. Needs a mount namespace.

    False where the kernel (before 5.12) or the namespace doesn't allow it; then the filter refuses such changes.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    folders = [os.fsencode(path) for path in writable if os.path.isdir(path)]  # noqa: PTH112
    if any(libc.mount(path, path, None, _BIND, None) for path in folders):
        return False

    def attributes(path: bytes, flags: int, on: int, off: int) -> bool:
        # struct mount_attr: attr_set, attr_clr, propagation, userns_fd
        values = (ctypes.c_uint64 * 4)(on, off, 0, 0)
        done: int = libc.syscall(_MOUNT_SETATTR, _HERE, path, flags, ctypes.byref(values), ctypes.sizeof(values))
        return done == 0

    if not attributes(b"/", _RECURSIVE, _READ_ONLY, 0):
        return False
    if not all(attributes(path, 0, 0, _READ_ONLY) for path in folders):
        raise ConfinementError("the folders to write to stayed read-only")
    # The current folder still belongs to the mount below.
    os.chdir(os.getcwd())  # noqa: PTH109
    return True


def _limit(file_bytes: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if file_bytes:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        most = file_bytes if hard == resource.RLIM_INFINITY else min(file_bytes, hard)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def _extension(path: str) -> ModuleType:
    """nono's native module alone: importing its package would take a third of a second more."""
    loader = importlib.machinery.ExtensionFileLoader("nono_py._nono_py", path)
    spec = importlib.util.spec_from_file_location("nono_py._nono_py", path, loader=loader)
    if spec is None:
        raise ConfinementError(f"{path} is no extension module")
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def _allow(capabilities: Any, path: str, mode: Any) -> None:
    """Allows a path that exists; no other can be allowed, or needs to be."""
    if os.path.isdir(path):  # noqa: PTH112
        capabilities.allow_path(path, mode)
    elif os.path.exists(path):  # noqa: PTH110
        capabilities.allow_file(path, mode)


def _readable(paths: Iterable[str]) -> int:
    """A Landlock ruleset under which only files at or below the paths can be read.

    nono can't allow a folder without allowing all that is in it.
    """
    handled = ctypes.c_uint64(_READ_FILE)
    ruleset = _syscall("create_ruleset", _CREATE_RULESET, ctypes.byref(handled), ctypes.sizeof(handled), 0)
    for path in paths:
        try:
            parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        # struct landlock_path_beneath_attr is packed: 8 bytes of rights, 4 of the descriptor.
        rule = _READ_FILE.to_bytes(8, sys.byteorder) + parent.to_bytes(4, sys.byteorder)
        _syscall(f"add_rule for {path}", _ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
        os.close(parent)
    return ruleset


def _syscall(name: str, number: int, *arguments: Any) -> int:
    """The result of a system call of landlock(7)."""
    result: int = ctypes.CDLL(None, use_errno=True).syscall(number, *arguments)
    if result < 0:
        raise ConfinementError(f"landlock_{name}: {os.strerror(ctypes.get_errno())}")
    return result


def _drop_capabilities() -> None:
    """Takes its rights from root: what it starts can't regain what its bounding set lacks (capabilities(7))."""
    for number in range(64):
        if number not in _KEPT_CAPABILITIES or os.getuid() != 0:
            ctypes.CDLL(None).prctl(24, number, 0, 0, 0)  # PR_CAPBSET_DROP; a plain user has none to drop


def _reaper() -> Any:
    """The socket over which the reaper takes a listener; None without a reaper that does."""
    if _SOCKETS not in os.environ:
        return None
    import _socket  # the module around it costs more to import than all the rest here

    return _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, int(os.environ.pop(_SOCKETS)))


class FilterProgram(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def _filter(program: bytes) -> None:
    loaded = FilterProgram(len(program) // 8, program)
    if _prctl(22, 2, ctypes.addressof(loaded)):  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
        raise ConfinementError("the kernel took no seccomp filter")


def _filter_that_asks(program: bytes, reaper: Any) -> bool:
    """Installs a filter and hands its listener to the reaper. False where the kernel has none to give."""
    loaded = FilterProgram(len(program) // 8, program)
    libc, call = ctypes.CDLL(None, use_errno=True), _SECCOMP[os.uname().machine]
    listener: int = libc.syscall(call, 1, _NEW_LISTENER | _WAIT_KILLABLE, ctypes.byref(loaded))  # SET_MODE_FILTER
    if listener < 0:
        return False
    reaper.sendmsg([b"l"], [(1, 1, listener.to_bytes(4, sys.byteorder))])  # SOL_SOCKET, SCM_RIGHTS
    os.close(listener)
    return True


def _prctl(option: int, first: int, second: int = 0) -> int:
    unsigned = ctypes.c_ulong
    done: int = ctypes.CDLL(None).prctl(option, unsigned(first), unsigned(second), unsigned(0), unsigned(0))
    return done


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
