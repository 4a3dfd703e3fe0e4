"""The paths that a trial's process needs on each platform: interpreter, packages, system libraries, drivers, devices.

Folders that hold more than these (homes, temporary folders, all of /var, /opt or /proc) are not among them.
"""

from __future__ import annotations

import glob
import os
import site
import sys
from collections.abc import Iterable
from pathlib import Path

import backends
import core
import presets
from core.data.corpora.registry import PACKAGES
from core.sandbox import tier
from core.system.files import cache_root, homes

_SYSTEM = {
    "linux": """
        /usr /bin /sbin /lib /lib32 /lib64 /libx32 /nix/store /gnu/store /run/opengl-driver
        /opt/rocm* /opt/amdgpu* /opt/nvidia* /opt/cuda* /opt/intel /opt/conda/lib
        /etc/ld.so.cache /etc/ld.so.conf /etc/ld.so.conf.d /etc/ld.so.preload /etc/ld-musl-*.path
        /etc/alternatives /etc/localtime /etc/timezone /etc/passwd /etc/group /etc/nsswitch.conf /etc/os-release
        /etc/hosts /etc/host.conf /etc/gai.conf /etc/services /etc/protocols
        /etc/ssl/openssl.cnf /etc/pki/tls/openssl.cnf /etc/crypto-policies
        /etc/OpenCL /etc/vulkan /etc/glvnd /etc/egl /etc/nvidia /etc/nvidia-container-runtime /etc/nv_tegra_release
        /proc/self /proc/cpuinfo /proc/meminfo /proc/stat /proc/uptime /proc/loadavg /proc/version /proc/filesystems
        /proc/devices /proc/modules /proc/driver/nvidia /proc/sys/vm /proc/sys/kernel /proc/sys/fs/pipe-max-size
        /sys/devices /sys/class /sys/bus /sys/dev /sys/module /sys/fs/cgroup /sys/kernel/mm
    """,
    "darwin": """
        /usr /bin /sbin /System /Library/Apple /Library/Developer /Library/Frameworks /Applications/Xcode.app
        /private/etc/localtime /private/etc/passwd /private/var/db/dyld /private/var/db/timezone /private/var/select
        /private/var/db/xcode_select_link /opt/homebrew/opt /opt/homebrew/lib /opt/homebrew/Cellar
    """,
}
# Names, certificates and ports of a network, and what a shell reads. /etc/ssl as a whole would hold private keys.
_TOOLS = {
    "linux": """
        /etc/bash.bashrc /etc/bashrc /etc/zsh /etc/zshenv /etc/inputrc /etc/gitconfig /etc/shells
        /etc/resolv.conf /etc/networks
        /etc/ssl/certs /etc/ssl/cert.pem /etc/ssl/ca-bundle.pem /etc/ca-certificates /etc/ca-certificates.conf
        /etc/pki/tls/certs /etc/pki/tls/cert.pem /etc/pki/ca-trust/extracted /var/lib/ca-certificates
    """,
    "darwin": """
        /private/etc/bashrc /private/etc/zshenv /private/etc/zshrc /private/etc/shells
        /private/etc/resolv.conf /private/var/run/resolv.conf /private/etc/hosts /private/etc/services
        /private/etc/protocols /private/etc/ssl/cert.pem /private/etc/ssl/certs /Library/Keychains
        /private/var/run/mDNSResponder /Library/Preferences/com.apple.networkd.plist
    """,
}
# For all platforms: what one lacks is left out.
_KERNEL_DEVICES = "/dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/dtracehelper"
_ACCELERATORS = "/dev/nvidia* /dev/dri /dev/kfd /dev/accel* /dev/vfio /dev/dxg /dev/nvhost* /dev/nvmap"
_PACKAGES = ("-packages", ".zip", ".egg")  # how folders and archives of packages are called
# Variables that name the folder of a driver or a compiler that is installed elsewhere.
_NAMED = ("CUDA_HOME", "CUDA_PATH", "ROCM_HOME", "ROCM_PATH", "SDKROOT", "DEVELOPER_DIR")


def system() -> tuple[Path, ...]:
    """The system's programs, libraries and drivers, and the files about the machine that these read."""
    return (*_found(_SYSTEM.get(sys.platform, "").split()), *_from_environment())


def tools() -> tuple[Path, ...]:
    """Files that a program with a network and a shell reads: names of hosts, certificates, the shell's start-up."""
    return _found(_TOOLS.get(sys.platform, "").split())


def kernel_devices() -> tuple[Path, ...]:
    """Device files without hardware: /dev/null and the like."""
    return _found(_KERNEL_DEVICES.split())


def device_files(root: str = "") -> tuple[Path, ...]:
    """Device files that a trainer may use: accelerators' and the kernel's own. `root` is a prefix, for tests."""
    return _found(root + pattern for pattern in f"{_KERNEL_DEVICES} {_ACCELERATORS}".split())


def python() -> tuple[Path, ...]:
    """The interpreter, its standard library and packages, and this system's own packages."""
    own = (Path(package.__path__[0]) for package in (core, backends, presets))
    prefixes = (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix)
    packages = [*site.getsitepackages(), *(entry for entry in sys.path if entry.endswith(_PACKAGES))]
    packages += [str(folder) for folder in python_path() if _is_installed(folder)]
    return tuple(dict.fromkeys([*map(Path, prefixes), *map(Path, packages), Path(sys.executable).resolve(), *own]))


def python_path() -> tuple[Path, ...]:
    """The entries of PYTHONPATH for confined processes: folders that an installer filled, and that of this package.

    Others, such as a project, are not for a trial to read. Where nothing is enforced all are handed on.
    """
    own, free = Path(core.__path__[0]).parent, not tier.here().enforced
    return tuple(folder for folder in _python_path() if free or folder == own or _is_installed(folder))


def unseen_python_path() -> tuple[Path, ...]:
    """The entries of PYTHONPATH that confined processes don't get, although they are there."""
    handed_on = python_path()
    return tuple(folder for folder in _python_path() if folder.exists() and folder not in handed_on)


def package_folders() -> tuple[Path, ...]:
    """The folders in which a trial's interpreter looks for packages; it has to list them."""
    found, unseen = (Path(entry) for entry in dict.fromkeys(sys.path) if entry), unseen_python_path()
    return tuple(folder for folder in found if folder.is_dir() and folder not in unseen)


def corpora() -> tuple[Path, ...]:
    """Where corpora lie: the cache, and the packages that are corpora."""
    return (cache_root(), *(path for package in PACKAGES for path in copies_of(package)))


def copies_of(package: str) -> tuple[Path, ...]:
    """Every copy of an installed package below the folders of `system` and `python`."""
    roots = {*package_folders(), *map(Path, site.getsitepackages())}
    prefixes = {Path(one).resolve() for one in (sys.prefix, sys.base_prefix, "/usr", "/usr/local", "/opt/homebrew")}
    for prefix in prefixes:
        roots |= set(prefix.glob("lib/python3*/*-packages"))
        roots |= set(prefix.glob("[Ll]ib/*-packages"))
    return tuple(sorted(root / package for root in roots if (root / package).exists()))


def _python_path() -> list[Path]:
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return list(dict.fromkeys(Path(entry).absolute() for entry in entries if entry))


def _is_installed(folder: Path) -> bool:
    """Whether an installer put packages there: `pip install --target`, a cluster's module, an archive."""
    if folder in homes():
        return False
    if folder.name.endswith(_PACKAGES):
        return folder.exists()
    return folder.is_dir() and any(any(folder.glob(f"*.{kind}-info")) for kind in ("dist", "egg"))


def _found(patterns: Iterable[str]) -> tuple[Path, ...]:
    found: dict[Path, None] = {}
    for pattern in patterns:
        for path in sorted(glob.glob(pattern)) if "*" in pattern else [pattern]:  # noqa: PTH207
            if os.path.exists(path):  # noqa: PTH110
                found[Path(path)] = None
    return tuple(found)


def _from_environment() -> tuple[Path, ...]:
    named = [os.environ[name] for name in _NAMED if os.environ.get(name)]
    for name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"):
        named += [part for part in os.environ.get(name, "").split(os.pathsep) if part]
    return tuple(path for path in map(Path, named) if path.is_absolute() and path.is_dir())
