"""The environment variables of a confined process: none that may hold a secret, and folders of its own."""

from __future__ import annotations

import os
import site
from collections.abc import Mapping
from pathlib import Path

from core.sandbox import paths

_NAMES = frozenset(
    """
    PATH LANG LANGUAGE TZ TERM LD_LIBRARY_PATH DYLD_LIBRARY_PATH CC CXX VIRTUAL_ENV CONDA_PREFIX SDKROOT DEVELOPER_DIR
    SYSTEMROOT SYSTEMDRIVE WINDIR COMSPEC PATHEXT NUMBER_OF_PROCESSORS PROCESSOR_ARCHITECTURE PROGRAMFILES
    PROGRAMFILES(X86) PROGRAMDATA INCLUDE LIB LIBPATH XLA_FLAGS CUDA_HOME CUDA_PATH ROCM_HOME ROCM_PATH
    PYTHONHOME
    """.split()
)
_PREFIXES = tuple(
    """
    LC_ CUDA_VISIBLE CUDA_DEVICE NVIDIA_ HIP_ HSA_ ROCR_ TPU_ JAX_PLATFORM OMP_ MKL_ OPENBLAS_ KMP_ GOMP_ VECLIB_
    """.split()
)


def scrubbed(scratch: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """All variables of one process: those of this process with an allowed name, homes in `scratch`, and `extra`."""
    kept = {key: value for key, value in os.environ.items() if key.upper() in _NAMES or key.startswith(_PREFIXES)}
    home = str(scratch)
    private = dict.fromkeys(("HOME", "USERPROFILE", "TMPDIR", "TMP", "TEMP", "XDG_CACHE_HOME"), home)
    offline = {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}
    return {**kept, **private, **offline, **_packages(), **extra}


def _packages() -> dict[str, str]:
    """What makes its interpreter find the packages that this one finds, although its home is another."""
    found = {}
    if site.ENABLE_USER_SITE:  # `pip install --user`
        found["PYTHONUSERBASE"] = site.getuserbase()
    if folders := paths.python_path():
        found["PYTHONPATH"] = os.pathsep.join(map(str, folders))
    return found
