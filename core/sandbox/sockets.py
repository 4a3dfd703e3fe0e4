"""Linux: connects the sockets of confined processes for them, if both ends are their own.

A filter of system calls can't see where connect(2) leads, because the address lies in memory. So it hands each call to
the reaper (seccomp_unotify(2)), and the process waits. The reaper reads the address once and connects a copy of the
descriptor itself: to a socket by path that it opened below the processes' folder; or, of a socket that was made in a
network namespace of their own, to any address there, which only they can answer. `multiprocessing`, PyTorch's data
loaders and torch.distributed need this. All else stays refused: sockets elsewhere (another trial's, Docker's).
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
import threading
from pathlib import Path

VARIABLE = "AUTORESEARCH_SOCKETS"  # the descriptor over which `confine.py` hands the listener to the reaper

# <linux/seccomp.h>; the numbers are the same on x86_64 and aarch64.
_RECEIVE, _ANSWER, _STILL_WAITS = 0xC0502100, 0xC0182101, 0x40082102  # SECCOMP_IOCTL_NOTIF_RECV, _SEND, _ID_VALID
_CALL = struct.Struct("=QII iIQ6Q")  # struct seccomp_notif: id, pid, flags, then nr, arch, address, six arguments
_REPLY = struct.Struct("=QqiI")  # struct seccomp_notif_resp: id, value, error, flags
_INT = 0xFFFFFFFF  # of a register that holds an int, what counts
_ADDRESS_BYTES = 128  # of a sockaddr_storage, the largest
_INTERNET = (_socket.AF_INET, _socket.AF_INET6)
_NETWORK_COOKIE = 71  # SO_NETNS_COOKIE
_AT_ONCE = 64  # calls that are served at one time: a connection waits while whom it is for has no room for it
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
    free = threading.BoundedSemaphore(_AT_ONCE)
    while not any(state & select.POLLHUP for _, state in poll.poll()):
        call = bytearray(_CALL.size)
        try:
            fcntl.ioctl(listener, _RECEIVE, call)
        except OSError:
            continue  # whoever asked has ended
        free.acquire()
        try:
            threading.Thread(target=_serve_one, args=(listener, call, folder, free), daemon=True).start()
        except RuntimeError:  # the system has no more threads to give
            _serve_one(listener, call, folder, free)


def _received(channel: _socket.socket) -> int | None:
    """The listener; None if the process was confined without one."""
    try:
        _, carried, _, _ = channel.recvmsg(1, _socket.CMSG_SPACE(4))
    except OSError:
        return None
    return struct.unpack("i", carried[0][2][:4])[0] if carried else None


def _serve_one(listener: int, call: bytearray, folder: Path, free: threading.Semaphore) -> None:
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
    free.release()


def _connect(listener: int, number: int, thread: int, descriptor: int, address: int, length: int, folder: Path) -> None:
    """Connects the asking thread's descriptor. OSError with what the thread is to see."""
    if not 2 < length <= _ADDRESS_BYTES:
        raise OSError(errno.EPERM, "no address")
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
        if family == copy.family and (family in _INTERNET or not path) and _of_another_network(copy):
            _connect_there(copy, given)
        elif (family, copy.family) == (_socket.AF_UNIX,) * 2 and copy.type in _CONNECTED and path:
            _connect_below(copy, folder, os.path.join(working, path))  # noqa: PTH118  `..` is the kernel's to resolve
        else:
            raise OSError(errno.EPERM, "not the processes' own")


def _connect_below(end: _socket.socket, folder: Path, path: str) -> None:
    """Connects to what lies at the whole path, if that is below the folder."""
    below = f"{folder}/"
    if not path.startswith(below):
        raise OSError(errno.EPERM, "outside the folder")
    root = os.open(folder, _PATH_ONLY | os.O_DIRECTORY)
    try:
        target = _open_below(root, path.removeprefix(below))
        try:
            end.connect(f"/proc/self/fd/{target}")
        finally:
            os.close(target)
    finally:
        os.close(root)


def _of_another_network(end: _socket.socket) -> bool:
    """Whether the socket was made in another network namespace than this process's. It connects in that one alone."""
    with contextlib.closing(_socket.socket(_socket.AF_UNIX)) as own:
        there, here = (one.getsockopt(_socket.SOL_SOCKET, _NETWORK_COOKIE, 8) for one in (end, own))
    return there != here


def _connect_there(end: _socket.socket, address: bytes) -> None:
    if ctypes.CDLL(None, use_errno=True).connect(end.fileno(), address, len(address)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


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
