"""What a trial's processes live in: environment variables without secrets, a private home, and what they may reach."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import backends
from core.data.corpora.registry import PACKAGES
from core.sandbox import paths
from core.sandbox.policy import Policy
from core.system.files import cache_root
from core.trial import compile_cache

_NAMES = frozenset(
    """
    PATH LANG LANGUAGE TZ TERM LD_LIBRARY_PATH DYLD_LIBRARY_PATH CC CXX VIRTUAL_ENV CONDA_PREFIX SDKROOT DEVELOPER_DIR
    SYSTEMROOT SYSTEMDRIVE WINDIR COMSPEC PATHEXT NUMBER_OF_PROCESSORS PROCESSOR_ARCHITECTURE PROGRAMFILES
    PROGRAMFILES(X86) PROGRAMDATA INCLUDE LIB LIBPATH XLA_FLAGS CUDA_HOME CUDA_PATH ROCM_HOME ROCM_PATH
    """.split()
)
_PREFIXES = tuple(
    """
    LC_ CUDA_VISIBLE CUDA_DEVICE NVIDIA_ HIP_ HSA_ ROCR_ TPU_ JAX_PLATFORM OMP_ MKL_ OPENBLAS_ KMP_ GOMP_ VECLIB_
    """.split()
)


def scrubbed(scratch: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of one process: allowed names of this one, homes and temporary folders in `scratch`, `extra`."""
    kept = {key: value for key, value in os.environ.items() if key.upper() in _NAMES or key.startswith(_PREFIXES)}
    home = str(scratch)
    private = dict.fromkeys(("HOME", "USERPROFILE", "TMPDIR", "TMP", "TEMP", "XDG_CACHE_HOME"), home)
    offline = {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}
    return {**kept, **private, **offline, **extra}


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """Of all processes of one backend on one device; each has a scratch of its own.

    `hidden` is what they must not read, wherever it lies: corpora, campaigns, other records.
    """

    backend: str
    device: str
    hidden: tuple[Path, ...] = ()

    def cache(self, scratch: Path) -> Path:
        """The folder for what the process compiles."""
        return scratch / "compiled"

    def variables(self, scratch: Path) -> dict[str, str]:
        """The whole environment of a process with that scratch."""
        own = backends.get(self.backend).environment(
            self.cache(scratch), compile_cache.fetched(self.backend), self.device
        )
        return scrubbed(scratch, own)

    def policy(self, scratch: Path, *, also_read: tuple[Path, ...] = ()) -> Policy:
        """What a process with that scratch may do."""
        packages = tuple(path for package in PACKAGES for path in paths.copies_of(package))
        return Policy(
            read=(*paths.system(), *paths.python(), compile_cache.fetched(self.backend), *also_read),
            write=(scratch,),
            devices=paths.device_files(),
            hidden=(cache_root(), *packages, *self.hidden),
            listed=paths.package_folders(),
        )
