"""A Python that finds the installed packages but nothing of ours, as on a machine without autoresearch."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

# Without `site` (-S) no .pth file is read, so an editable install isn't found; the finder refuses one that is a wheel.
PRELUDE = """
import sys
sys.path[:0] = [{folder!r}, {packages!r}]

class Refuse:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in ("autoresearch", "core", "backends", "presets"):
            raise ModuleNotFoundError(f"{{name}} is not installed here", name=name)

sys.meta_path.insert(0, Refuse)
"""


def run(code: str, folder: Path, *arguments: object) -> str:
    """What `code` prints in `folder`, whose modules it can import. Fails if it doesn't end with status 0."""
    prelude = PRELUDE.format(folder=str(folder), packages=sysconfig.get_path("purelib"))
    command = [sys.executable, "-I", "-S", "-c", prelude + code, *map(str, arguments)]
    kept = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "XLA_FLAGS", "PATH", "SYSTEMROOT", "HOME")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout
