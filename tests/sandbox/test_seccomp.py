"""The filter of system calls, run here as the kernel would: a table of calls and what becomes of each."""

from __future__ import annotations

import errno
import struct

import pytest

from core.sandbox import seccomp

ALLOW, ASK, ERRNO = 0x7FFF0000, 0x7FC00000, 0x00050000
REFUSED, IGNORED, MISSING = ERRNO | errno.EPERM, ERRNO, ERRNO | errno.ENOSYS
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
AF_UNIX, AF_INET, STREAM, DATAGRAM, CLOEXEC = 1, 2, 1, 2, 0o2000000


def outcome(program: bytes, machine: int, number: int, *arguments: int) -> int:
    """What the filter returns for one call: an interpreter of the instructions that it uses (Linux, bpf(2))."""
    filled = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, machine, 0, *filled)
    at, accumulator = 0, 0
    instructions = list(struct.iter_unpack("<HBBI", program))
    while True:
        code, yes, no, value = instructions[at]
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif code == 0x54:
            accumulator &= value
        elif code == 0x06:
            return int(value)
        else:
            holds = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[code]
            at += yes if holds else no


# name, numbers on x86_64 and aarch64 (None: not there), arguments, what becomes of it.
CALLS = [
    ("read", (0, 63), (), ALLOW),
    ("openat", (257, 56), (), ALLOW),
    ("kill", (62, 129), (), ALLOW),  # Landlock's to refuse
    ("futex", (202, 98), (), ALLOW),
    ("execve", (59, 221), (), ALLOW),
    ("io_uring_setup", (425, 425), (), REFUSED),
    ("ptrace", (101, 117), (), REFUSED),
    ("clock_settime", (227, 112), (), REFUSED),
    ("shmget", (29, 194), (), REFUSED),
    ("mq_open", (240, 180), (), REFUSED),
    ("unshare", (272, 97), (), REFUSED),
    ("reboot", (169, 142), (), REFUSED),
    ("chmod", (90, None), (), IGNORED),
    ("fchmodat", (268, 53), (), IGNORED),
    ("utimensat", (280, 88), (), IGNORED),
    ("clone of a thread", (56, 220), (0x3D0F00,), ALLOW),
    ("clone into a user namespace", (56, 220), (0x10000011,), REFUSED),
    ("clone3", (435, 435), (), MISSING),
    ("prlimit of itself", (302, 261), (0,), ALLOW),
    ("prlimit of another", (302, 261), (1,), REFUSED),
    ("setpriority of itself", (141, 140), (0, 0), ALLOW),
    ("setpriority of another", (141, 140), (0, 1), REFUSED),
    ("ioctl of a device", (16, 29), (3, 0xC0104600), ALLOW),
    ("ioctl that types", (16, 29), (0, 0x5412), REFUSED),
    ("ioctl that types on a console", (16, 29), (0, 0x541C), REFUSED),
    ("socketpair", (53, 199), (AF_UNIX, STREAM | CLOEXEC), ALLOW),
    ("socketpair of datagrams", (53, 199), (AF_UNIX, DATAGRAM | CLOEXEC), REFUSED),
    ("socket", (41, 198), (AF_INET, STREAM), REFUSED),
    ("netlink", (41, 198), (16, 3), REFUSED),
    ("unix socket", (41, 198), (AF_UNIX, STREAM), ALLOW),
    ("unix socket of datagrams", (41, 198), (AF_UNIX, DATAGRAM), REFUSED),
    ("connect", (42, 203), (3,), REFUSED),
]


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_what_becomes_of_each_call(machine: str) -> None:
    program = seccomp.program(machine)
    column = list(AUDIT).index(machine)
    for name, numbers, arguments, expected in CALLS:
        if (number := numbers[column]) is not None:
            assert outcome(program, AUDIT[machine], number, *arguments) == expected, name


def test_a_listener_is_asked_about_connections_alone() -> None:
    program, plain = seccomp.program("x86_64", connects="ask"), seccomp.program("x86_64")
    for name, (number, _), arguments, expected in CALLS:
        if number is not None:
            asked = ASK if name == "connect" else expected
            assert outcome(program, AUDIT["x86_64"], number, *arguments) == asked, name
    assert len(program) == len(plain)


SOCKETS_OF_A_LOOPBACK = [
    *(((family, kind | CLOEXEC, 0), ALLOW) for family in (AF_INET, 10) for kind in (STREAM, DATAGRAM)),
    ((AF_INET, STREAM, 6), ALLOW),
    ((AF_INET, DATAGRAM, 17), ALLOW),
    ((AF_INET, 3, 1), REFUSED),  # raw
    ((AF_INET, STREAM, 132), REFUSED),  # SCTP
    ((AF_INET, STREAM, 262), REFUSED),  # MPTCP
    ((16, 3, 0), ALLOW),  # netlink: routes and interfaces
    ((16, 3, 9), REFUSED),  # audit
    ((16, 3, 15), REFUSED),  # what devices come and go
    ((17, 3, 0), REFUSED),  # packets
    ((40, STREAM, 0), REFUSED),  # vsock
    ((38, 5, 0), REFUSED),  # the kernel's ciphers
]


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_sockets_of_a_network_of_its_own(machine: str) -> None:
    program, column = seccomp.program(machine, connects="loopback"), list(AUDIT).index(machine)
    for socket, expected in SOCKETS_OF_A_LOOPBACK:
        assert outcome(program, AUDIT[machine], (41, 198)[column], *socket) == expected, socket
    for name, numbers, arguments, expected in CALLS:
        if (number := numbers[column]) is not None and name not in ("socket", "netlink"):
            wanted = ASK if name == "connect" else expected
            assert outcome(program, AUDIT[machine], number, *arguments) == wanted, name


def test_calls_of_another_architecture_are_refused() -> None:
    program = seccomp.program("x86_64")
    assert outcome(program, 0x40000003, 3) == REFUSED  # i386
    assert outcome(program, AUDIT["x86_64"], 0x40000000 | 41, AF_INET, STREAM) == REFUSED  # x32
    assert outcome(seccomp.program("aarch64"), 0x40000028, 3) == REFUSED  # arm


def test_what_a_policy_allows_is_left_alone() -> None:
    program = seccomp.program("x86_64", network=True, attributes=True)
    calls = {name: (numbers[0], arguments) for name, numbers, arguments, _ in CALLS}
    for name in ("chmod", "utimensat", "socket", "netlink", "connect", "socketpair"):
        number, arguments = calls[name]
        assert number is not None
        assert outcome(program, AUDIT["x86_64"], number, *arguments) == ALLOW, name
    by_path = ("unix socket", "unix socket of datagrams", "socketpair of datagrams")
    for name in ("ptrace", "io_uring_setup", "clone into a user namespace", *by_path):
        number, arguments = calls[name]
        assert number is not None
        assert outcome(program, AUDIT["x86_64"], number, *arguments) == REFUSED, name
