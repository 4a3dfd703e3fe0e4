"""Fetches what a backend needs from the network, in a process of its own, because trials have no network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import backends
from core.records import Preset, UserError


def fetch(preset: Preset, into: Path) -> str | None:
    """Has the preset's backend fetch below `into`. Returns a line for the user, or None; UserError if it failed."""
    if preset.device == "cpu" or backends.get(preset.backend).missing():
        return None
    command = [sys.executable, "-P", "-m", "core.trial.fetch", preset.backend, str(into)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
        raise UserError(f"backend {preset.backend!r} could not fetch what it needs: {last}. Try again when online")
    return done.stdout.strip() or None


if __name__ == "__main__":
    print(backends.get(sys.argv[1]).fetch(Path(sys.argv[2])) or "")
