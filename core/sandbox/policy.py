"""What a confined process may do, and the command line that runs a command confined to that.

    command = confined(["python", "-c", "..."], SandboxPolicy(read=system(), write=(folder,)), scratch)
    subprocess.run(command, env=..., cwd=folder)

Nothing here knows what a trial is.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.sandbox import confine, seccomp, tier

FILE_BYTES = 64 * 2**30
SHARED_MEMORY = "/dev/shm"
_MACOS = (
    "(allow iokit-open)",  # Metal
    "(allow iokit-get-properties)",
    "(allow ipc-posix-sem)",  # Python's multiprocessing
    "(allow signal (target same-sandbox))",
    "(allow process-info* (target same-sandbox))",
)


@dataclass(frozen=True, kw_only=True)
class SandboxPolicy:
    """What a process and all it starts may do. A folder stands for all below it; a missing path is ignored."""

    read: tuple[Path, ...]  # also execute
    write: tuple[Path, ...]  # also read
    devices: tuple[Path, ...] = ()  # read, write and control
    hidden: tuple[Path, ...] = ()  # not readable, though below `read`; of two nested paths the longer decides
    listed: tuple[Path, ...] = ()  # names below can be listed, no more: where the interpreter looks for packages
    network: bool = False  # sockets by path (Docker's, a desktop's) stay refused where there is a filter; False: a
    # loopback of its own, where there are namespaces and a reaper that connects its sockets
    attributes: bool = False  # may set modes, owners and times, also of files that it can't read; False: no effect
    file_bytes: int = FILE_BYTES  # most that one file can grow to
    oom_first: bool = True  # when memory runs short, the kernel ends this process before its supervisor


def confined(command: Sequence[str], policy: SandboxPolicy, folder: Path) -> list[str]:
    """The command line that runs `command` confined. `command` itself where nothing is enforced, or it is turned off.

    A small file is written to `folder` and deleted as soon as it was read. If the confinement can't be applied, the
    process ends with status 125 and the reason on stderr. The first word of `command` is a path.
    """
    if not tier.here().enforced:
        return list(command)
    handle, name = tempfile.mkstemp(prefix="policy-", suffix=".json", dir=folder)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(_plain(policy), file)
    return [sys.executable, "-I", "-S", confine.__file__, name, *command]


def readable(roots: Iterable[Path], hidden: Iterable[Path]) -> list[Path]:
    """The roots without what is hidden: a folder with a hidden path below it is replaced by its other children.

    Symbolic links among these are left out: their targets are either roots themselves or not to be read.
    """
    kept: list[Path] = []
    for root in roots:
        inner = [one for one in hidden if root in one.parents]
        if not inner:
            kept.append(root)
            continue
        children = [child for child in root.iterdir() if not child.is_symlink() and child not in inner]
        kept += readable(children, inner)
    return kept


def _plain(policy: SandboxPolicy) -> dict[str, Any]:
    hidden = {path.resolve() for path in policy.hidden if path.exists()}
    own = [path for path in policy.read if path.parts[:3] == ("/", "proc", "self")]  # another file in every process
    read = list(dict.fromkeys(path.resolve() for path in policy.read if path not in own and path.exists()))
    listed = [path for path in policy.listed if path.exists()]
    linux = sys.platform == "linux"
    nested = [path for path in read if any(one in (path, *path.parents) for one in hidden)]

    def program(*, attributes: bool, connects: seccomp.Connects = "refused") -> str:
        if not seccomp.supported():
            return ""
        machine = platform.machine()
        return seccomp.program(machine, network=policy.network, attributes=attributes, connects=connects).hex()

    return {
        "extension": tier.extension(),
        "read": _strings(policy.read),
        "listed": _strings(listed) if linux else [],
        "narrowed": _strings([*readable(read, hidden), *own]) if linux else [],
        "write": _strings(policy.write),
        "devices": _strings(policy.devices),
        "network": policy.network,
        "seatbelt": [] if linux else [*_MACOS, *_rules(hidden, nested, listed)],
        # By name "fixed", for where all else is read-only: modes and times then need no filter. By "ask", for where the
        # reaper connects sockets; by "loopback", for where it does and the network is the process's own.
        "seccomp": {
            "": program(attributes=policy.attributes),
            "fixed": program(attributes=True),
            "ask": program(attributes=policy.attributes, connects="ask"),
            "fixed ask": program(attributes=True, connects="ask"),
            "loopback": program(attributes=policy.attributes, connects="loopback"),
            "fixed loopback": program(attributes=True, connects="loopback"),
        },
        "shared_memory": SHARED_MEMORY if linux else "",
        "file_bytes": policy.file_bytes,
        "oom_first": policy.oom_first,
    }


def _rules(hidden: Iterable[Path], nested: Iterable[Path], listed: Iterable[Path]) -> list[str]:
    """macOS: rules in Seatbelt's language for what nono can't express. The last rule that matches decides."""
    return [
        *(f"(allow file-read* (literal {json.dumps(str(path))}))" for path in listed),
        *(f"(deny file-read-data (subpath {json.dumps(str(path))}))" for path in sorted(hidden)),
        *(f"(allow file-read-data (subpath {json.dumps(str(path))}))" for path in sorted(nested)),
    ]


def _strings(paths: Iterable[Path]) -> list[str]:
    return list(dict.fromkeys(map(str, paths)))
