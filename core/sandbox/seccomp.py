"""A seccomp filter for Linux on x86_64 and aarch64: it refuses system calls that no trainer needs and that Landlock
doesn't cover. This module assembles the filter; `confine.py` installs it.
"""

from __future__ import annotations

import errno
import functools
import platform
import struct
import sys
from collections.abc import Iterable
from typing import Literal

# Numbers: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h of Linux; 0: not there.
_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}  # AUDIT_ARCH_*, column below

_REFUSED = """
    io_uring_setup 425 425       io_uring_enter 426 426       io_uring_register 427 427
    ptrace 101 117               process_vm_readv 310 270     process_vm_writev 311 271
    pidfd_getfd 438 438          kcmp 312 272                 process_madvise 440 440
    bpf 321 280                  perf_event_open 298 241      userfaultfd 323 282
    mount 165 40                 umount2 166 39               pivot_root 155 41
    chroot 161 51                move_mount 429 429           open_tree 428 428
    fsopen 430 430               fsconfig 431 431             fsmount 432 432
    fspick 433 433               mount_setattr 442 442        open_tree_attr 467 467
    unshare 272 97               setns 308 268                name_to_handle_at 303 264
    open_by_handle_at 304 265    fanotify_init 300 262        fanotify_mark 301 263
    add_key 248 217              request_key 249 218          keyctl 250 219
    clock_settime 227 112        clock_adjtime 305 266        adjtimex 159 171
    settimeofday 164 170         sethostname 170 161          setdomainname 171 162
    shmget 29 194                shmat 30 196                 shmctl 31 195
    semget 64 190                semop 65 193                 semtimedop 220 192
    semctl 66 191                msgget 68 186                msgsnd 69 189
    msgrcv 70 188                msgctl 71 187                mq_open 240 180
    mq_unlink 241 181            reboot 169 142               syslog 103 116
    init_module 175 105          finit_module 313 273         delete_module 176 106
    kexec_load 246 104           kexec_file_load 320 294      acct 163 89
    swapon 167 224               swapoff 168 225              quotactl 179 60
    quotactl_fd 443 443          vhangup 153 58               lookup_dcookie 212 18
    iopl 172 0                   ioperm 173 0                 modify_ldt 154 0
    uselib 134 0                 _sysctl 156 0                nfsservctl 180 42
"""

# Landlock has no rule for modes, owners, times and attributes: a trial could set those of a file that it can't read, to
# pass bits to the next trial or to do damage. These calls succeed without effect, because what copies files needs them.
_IGNORED = """
    chmod 90 0                   fchmod 91 52                 fchmodat 268 53
    fchmodat2 452 452            chown 92 0                   fchown 93 55
    lchown 94 0                  fchownat 260 54              utime 132 0
    utimes 235 0                 futimesat 261 0              utimensat 280 88
    setxattr 188 5               lsetxattr 189 6              fsetxattr 190 7
    setxattrat 463 463           removexattr 197 14           lremovexattr 198 15
    fremovexattr 199 16          removexattrat 466 466        file_setattr 469 469
"""

_SOCKET, _SOCKETPAIR, _CONNECT = (41, 198), (53, 199), (42, 203)
_CLONE, _CLONE3, _IOCTL = (56, 220), (435, 435), (16, 29)
_PRLIMIT = (302, 261)  # its first argument is a process, 0 for the caller
_OF_OTHERS = ((141, 140), (251, 30))  # setpriority, ioprio_set: the second argument is whose, 0 for the caller
_NAMESPACES = 0x7E020000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET
_TERMINAL_INPUT = (0x5412, 0x541C)  # TIOCSTI and TIOCLINUX type into the user's terminal
_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_SOCK_STREAM, _SOCK_DGRAM, _TYPE = 1, 2, 0xF
_TCP, _UDP = 6, 17
_X32 = 0x40000000

# Classic BPF and seccomp(2).
_LOAD, _AND, _JUMP_EQUAL, _JUMP_SET, _JUMP_FROM, _RETURN = 0x20, 0x54, 0x15, 0x45, 0x35, 0x06
_ALLOW, _ASK, _ERRNO = 0x7FFF0000, 0x7FC00000, 0x00050000

Instruction = tuple[int, int, int, int]
Connects = Literal["refused", "ask", "loopback"]


def supported() -> bool:
    """Whether this machine's numbers are known here and its kernel takes filters."""
    if sys.platform != "linux" or platform.machine() not in _ARCHITECTURES or sys.byteorder != "little":
        return False
    import ctypes

    # seccomp(SECCOMP_GET_ACTION_AVAIL, 0, &SECCOMP_RET_ERRNO)
    number = {"x86_64": 317, "aarch64": 277}[platform.machine()]
    action = ctypes.c_uint32(_ERRNO)
    return bool(ctypes.CDLL(None).syscall(number, 2, 0, ctypes.byref(action)) == 0)


@functools.cache
def program(machine: str, *, network: bool = False, attributes: bool = False, connects: Connects = "refused") -> bytes:
    """The filter for `machine` as an array of struct sock_filter.

    `network` allows sockets, but none by path, which would reach other programs of this machine. `attributes` allows
    changes of modes, owners and times. `connects`: with "ask", each connect(2) is left to the filter's listener
    (`sockets.py`); with "loopback" also, and sockets of TCP and UDP are allowed: the process has a network of its own.
    """
    audit, column = _ARCHITECTURES[machine]
    allow, ignore, refuse = ((_RETURN, 0, 0, action) for action in (_ALLOW, _ERRNO, _ERRNO | errno.EPERM))
    out: list[Instruction] = [
        (_LOAD, 0, 0, 4),
        (_JUMP_EQUAL, 1, 0, audit),
        refuse,
        (_LOAD, 0, 0, 0),
    ]
    if machine == "x86_64":
        out += [(_JUMP_FROM, 0, 1, _X32), refuse]

    def case(value: int, *body: Instruction) -> tuple[Instruction, ...]:
        return ((_JUMP_EQUAL, 0, len(body), value), *body)

    def on(number: tuple[int, int], *body: Instruction) -> None:
        if number[column]:
            out.extend(case(number[column], *body))

    for number in _numbers(_REFUSED):
        on(number, refuse)
    if not attributes:
        for number in _numbers(_IGNORED):
            on(number, ignore)
    on(_CLONE, _argument(0), (_JUMP_SET, 0, 1, _NAMESPACES), refuse, allow)
    on(_CLONE3, (_RETURN, 0, 0, _ERRNO | errno.ENOSYS))  # its flags lie in memory; C libraries then take clone
    on(_PRLIMIT, _argument(0), (_JUMP_EQUAL, 1, 0, 0), refuse, allow)
    for number in _OF_OTHERS:
        on(number, _argument(1), (_JUMP_EQUAL, 1, 0, 0), refuse, allow)
    tests = [(_JUMP_EQUAL, len(_TERMINAL_INPUT) - i, 0, one) for i, one in enumerate(_TERMINAL_INPUT)]
    on(_IOCTL, _argument(1), *tests, allow, refuse)
    # Pairs of stream sockets are allowed: they are pipes in both directions. A path would reach other programs.
    kind = (_argument(1), (_AND, 0, 0, _TYPE))
    unix = case(_AF_UNIX, *kind, *case(_SOCK_DGRAM, refuse), allow)
    on(_SOCKETPAIR, _argument(0), *unix, refuse)
    if network:
        on(_SOCKET, _argument(0), *case(_AF_UNIX, refuse), allow)
    else:
        families = unix
        if connects == "loopback":
            # No raw packets, and no protocols that few use. Netlink's first protocol lists a network's own interfaces.
            protocol = (_argument(2), *(one for number in (0, _TCP, _UDP) for one in case(number, allow)), refuse)
            internet = (*kind, *case(_SOCK_STREAM, *protocol), *case(_SOCK_DGRAM, *protocol), refuse)
            families += case(_AF_INET, *internet) + case(_AF_INET6, *internet)
            families += case(_AF_NETLINK, _argument(2), *case(0, allow), refuse)
        on(_SOCKET, _argument(0), *families, refuse)
        on(_CONNECT, refuse if connects == "refused" else (_RETURN, 0, 0, _ASK))
    out.append(allow)
    return _assembled(out)


def _assembled(instructions: Iterable[Instruction]) -> bytes:
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in instructions)


def _argument(index: int) -> Instruction:
    return (_LOAD, 0, 0, 16 + 8 * index)


def _numbers(table: str) -> list[tuple[int, int]]:
    words = table.split()
    return [(int(x86), int(arm)) for x86, arm in zip(words[1::3], words[2::3], strict=True)]
