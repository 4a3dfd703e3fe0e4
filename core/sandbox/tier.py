"""How much of a confinement this platform can enforce, and the one switch that turns confinement off."""

from __future__ import annotations

import ctypes
import functools
import importlib.machinery
import importlib.util
import sys
from dataclasses import dataclass

from core.sandbox import seccomp
from core.system import install

NONE = "none"
_EVERYTHING = ("files", "network", "system calls", "signals to other processes")
_ALWAYS = ("memory of a device that others use", "timing")
_off = ""


@dataclass(frozen=True)
class Tier:
    """A level of enforcement."""

    name: str  # as in each trial's record
    unenforced: tuple[str, ...]  # what a process can't be kept from
    why: str = ""  # the reason if the tier is none

    @property
    def enforced(self) -> bool:
        return self.name != NONE


def turn_off(reason: str) -> None:
    """From here on this process confines nothing that it starts, for that reason. "" turns confinement on again."""
    global _off
    _off = reason


def here() -> Tier:
    """The tier that processes started by this one are confined under."""
    return Tier(NONE, _EVERYTHING, _off) if _off else available()


@functools.cache
def available() -> Tier:
    """The tier of this platform, whether confinement is turned off or not."""
    if sys.platform == "win32":
        return Tier(NONE, _EVERYTHING, "Windows has no sandbox that a program can put on itself")
    if not extension():
        return Tier(
            NONE, _EVERYTHING, f"nono-py has no build for this platform or is not installed: {install.command()}"
        )
    if sys.platform == "darwin":
        return Tier("seatbelt", (*_ALWAYS, "Mach services", "shared memory by name"))
    version = landlock_version()
    if version < 2:  # version 1 can't allow that a file is renamed from one folder to another
        return Tier(NONE, _EVERYTHING, "no Landlock here: it needs Linux 5.19 or newer, with landlock among its lsm=")
    lacking = [*_ALWAYS, "names and sizes of files whose path is known"]
    if version < 3:
        lacking.append("truncation of files")
    if version < 5:
        lacking.append("control of device files")
    if version < 6:
        lacking.append("signals to other processes")
    if not seccomp.supported():
        lacking += ["system calls", "sockets by path", "modes, owners and times of files"]
        if version < 4:
            lacking.append("network")
        return Tier("landlock", tuple(lacking))
    return Tier("landlock+seccomp", (*lacking, "the processors that others run on"))


@functools.cache
def extension() -> str:
    """The file of nono's native module; empty if nono isn't installed. Imports nothing."""
    try:
        package = importlib.util.find_spec("nono_py")
    except (ImportError, ValueError):
        return ""
    if package is None or not package.submodule_search_locations:
        return ""
    spec = importlib.machinery.PathFinder.find_spec("nono_py._nono_py", package.submodule_search_locations)
    return spec.origin if spec is not None and spec.origin else ""


def landlock_version() -> int:
    """The version of the kernel's Landlock; 0 without one (landlock_create_ruleset with the flag VERSION)."""
    if sys.platform != "linux":
        return 0
    version: int = ctypes.CDLL(None).syscall(444, None, 0, 1)
    return max(0, version)
