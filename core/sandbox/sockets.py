"""Linux: connects the sockets of confined processes for them, if both ends lie in one folder.

A filter of system calls can't see where connect(2) leads, because the address lies in memory. So it hands each call to
the reaper (seccomp_unotify(2)), and the process waits. The reaper reads the address once and connects a copy of the
descriptor itself, to a socket that it opened below the folder. `multiprocessing` and PyTorch's data loaders need this.
Other addresses stay refused: sockets elsewhere (another trial's, Docker's) and abstract names.
"""

from __future__ import annotations

import _socket
import contextlib
import ctypes
import errno
import fcntl
import os
import select
import struct
import sys
from pathlib import Path

VARIABLE = "AUTORESEARCH_SOCKETS"  # the descriptor over which `confine.py` hands the listener to the reaper

# <linux/seccomp.h>; the numbers are the same on x86_64 and aarch64.
_RECEIVE, _ANSWER, _STILL_WAITS = 0xC0502100, 0xC0182101, 0x40082102  # SECCOMP_IOCTL_NOTIF_RECV, _SEND, _ID_VALID
_CALL = struct.Struct("=QII iIQ6Q")  # struct seccomp_notif: id, pid, flags, then nr, arch, address, six arguments
_REPLY = struct.Struct("=QqiI")  # struct seccomp_notif_resp: id, value, error, flags
_INT = 0xFFFFFFFF  # of a register that holds an int, what counts
_ADDRESS_BYTES = 110  # of a sockaddr_un
_CONNECTED = (_socket.SOCK_STREAM, _socket.SOCK_SEQPACKET)
_GET_DESCRIPTOR, _OPEN_BELOW = 438, 437  # pidfd_getfd, openat2
_BENEATH, _NO_MAGIC_LINKS = 0x08, 0x02  # RESOLVE_*
_PATH_ONLY, _CLOSE_ON_EXEC = 0x200000, 0x80000  # O_PATH, O_CLOEXEC


def serve(channel: _socket.socket, folder: Path) -> None:
    """Receives the listener over the channel, then connects sockets below `folder` until nobody is left to ask."""
    listener = _received(channel)
    channel.close()
    if listener is None:
        return
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    while not any(state & select.POLLHUP for _, state in poll.poll()):
        _serve_one(listener, folder)


def _received(channel: _socket.socket) -> int | None:
    """The listener; None if the process was confined without one."""
    try:
        _, carried, _, _ = channel.recvmsg(1, _socket.CMSG_SPACE(4))
    except OSError:
        return None
    return struct.unpack("i", carried[0][2][:4])[0] if carried else None


def _serve_one(listener: int, folder: Path) -> None:
    call = bytearray(_CALL.size)
    try:
        fcntl.ioctl(listener, _RECEIVE, call)
    except OSError:
        return  # whoever asked has ended
    number, thread, _, _, _, _, descriptor, address, length, *_ = _CALL.unpack(call)
    try:
        _connect(listener, number, thread, descriptor & _INT, address, length & _INT, folder)
        error = 0
    except OSError as refused:
        error = refused.errno or errno.EPERM
    except Exception:  # noqa: BLE001  whatever it was, the process must not wait for ever
        error = errno.EPERM
    with contextlib.suppress(OSError):  # it has ended meanwhile
        fcntl.ioctl(listener, _ANSWER, _REPLY.pack(number, 0, -error, 0))


def _connect(listener: int, number: int, thread: int, descriptor: int, address: int, length: int, folder: Path) -> None:
    """Connects the asking thread's descriptor. OSError with what the thread is to see."""
    if not 2 < length <= _ADDRESS_BYTES:
        raise OSError(errno.EPERM, "no address of a socket by path")
    with contextlib.ExitStack() as stack:

        def closing(opened: int) -> int:
            stack.callback(os.close, opened)
            return opened

        memory = closing(os.open(f"/proc/{thread}/mem", os.O_RDONLY))
        given = os.pread(memory, length, address)
        process = closing(_pidfd_open(_process_of(thread)))
        copy = _socket.socket(fileno=_system_call(_GET_DESCRIPTOR, process, descriptor, 0))
        stack.callback(copy.close)
        working = Path(f"/proc/{thread}/cwd").readlink()
        # All of this was the thread's own only if it still waits; else its number may be another's by now.
        fcntl.ioctl(listener, _STILL_WAITS, struct.pack("=Q", number))
        family, path = int.from_bytes(given[:2], sys.byteorder), os.fsdecode(given[2:].partition(b"\0")[0])
        if (family, copy.family) != (_socket.AF_UNIX,) * 2 or copy.type not in _CONNECTED or not path:
            raise OSError(errno.EPERM, "no socket by path")
        below, whole = f"{folder}/", os.path.join(working, path)  # noqa: PTH118  `..` is the kernel's to resolve
        if not whole.startswith(below):
            raise OSError(errno.EPERM, "outside the folder")
        root = closing(os.open(folder, _PATH_ONLY | os.O_DIRECTORY))
        target = closing(_open_below(root, whole.removeprefix(below)))
        copy.connect(f"/proc/self/fd/{target}")


def _process_of(thread: int) -> int:
    status = Path(f"/proc/{thread}/status").read_text(encoding="ascii", errors="replace")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("Tgid:"))


def _open_below(root: int, path: str) -> int:
    """A descriptor of what lies at a path below `root`. No link leads out of there."""
    how = struct.pack("=3Q", _PATH_ONLY | _CLOSE_ON_EXEC, 0, _BENEATH | _NO_MAGIC_LINKS)
    try:
        return _system_call(_OPEN_BELOW, root, os.fsencode(path), how, len(how))
    except OSError as error:
        raise OSError(errno.EPERM if error.errno == errno.EXDEV else error.errno, "not below the folder") from None


def _pidfd_open(process: int) -> int:
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, "Linux only")
    return os.pidfd_open(process)


def _system_call(number: int, *arguments: int | bytes) -> int:
    result: int = ctypes.CDLL(None, use_errno=True).syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
