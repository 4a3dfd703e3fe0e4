"""Builds the wheel, installs it into an environment of each Python that is here, and uses it outside the checkout.

    python scripts/try_wheel.py                 every Python from 3.11 to 3.14 that uv finds
    python scripts/try_wheel.py 3.12 /opt/py/bin/python3

Ends with status 1 if something failed; a version that isn't here is named and left out. Needs a package index.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
SECONDS = 600
NAMES = "import autoresearch as a\n[getattr(a, name) for name in a.__all__]\nprint(a.__file__)"
TEXT = "It is a truth universally acknowledged that a trial of one second must be in want of a corpus. "


def main(wanted: Sequence[str]) -> int:
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    failed = False
    with tempfile.TemporaryDirectory(prefix="autoresearch-wheel-") as temporary:
        folder = Path(temporary)
        run([uv, "build", "--quiet", "--wheel", "--out-dir", folder / "dist", ROOT], folder)
        wheel = next((folder / "dist").glob("*.whl"))
        for number, version in enumerate(wanted or VERSIONS):
            find = [uv, "python", "find", "--no-python-downloads", version]
            found = subprocess.run(find, check=False, capture_output=True, text=True)
            if found.returncode:
                say(f"{version}: not here, left out")
                failed |= bool(wanted)
                continue
            begun = time.monotonic()
            try:
                told = use(uv, found.stdout.strip(), wheel, folder / str(number))
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired, AssertionError) as error:
                failed = True
                said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
                say(f"{version}: FAILED: {' | '.join(said[-3:])}")
            else:
                say(f"{version}: {told} ({time.monotonic() - begun:.0f} s)")
    return int(failed)


def use(uv: str, python: str, wheel: Path, folder: Path) -> str:
    """Installs the wheel and uses command and module. CalledProcessError or AssertionError if something is wrong."""
    environment, outside = folder / "environment", folder / "outside"
    texts = outside / "texts"
    texts.mkdir(parents=True)
    for number in range(60):
        (texts / f"{number}.txt").write_text(f"{TEXT * (20 + number)}\n{number}\n", encoding="utf-8")
    run([uv, "venv", "--quiet", "--python", python, environment], folder)
    places = environment / ("Scripts" if sys.platform == "win32" else "bin")
    constraints = ROOT / "constraints.txt"
    run([uv, "pip", "install", "--quiet", "--python", places / "python", "--constraint", constraints, wheel], folder)
    loaded = run([places / "python", "-W", "error", "-c", NAMES], outside).strip()
    assert Path(loaded).is_relative_to(environment), f"import autoresearch loaded {loaded}"
    version = run([places / "python", "-m", "autoresearch", "--version"], outside).strip()
    command = places / "autoresearch"
    options = ["--preset", "numpy", "--corpus", "folder:texts", "--set", "score_bytes=5000", "--experiments", "2"]
    run([command, "run", "n", *options], outside)
    status = json.loads(run([command, "status", "n", "--json"], outside))
    assert status["experiments"] == 2 and status["champion_bpb"] is not None, status
    run([command, "audit", "n", "--quick"], outside)
    exported = json.loads(run([command, "export", "n", "model", "--json"], outside))
    assert exported["warnings"] == [], exported
    run([places / "python", "-m", "compileall", "-q", outside / "model"], outside)
    return f"autoresearch {version}: import, run, status, audit and export; champion {status['champion_bpb']:.4f} bpb"


def run(command: Sequence[str | Path], folder: Path) -> str:
    """What the command prints to standard output."""
    words = list(map(str, command))
    return subprocess.run(words, cwd=folder, check=True, capture_output=True, text=True, timeout=SECONDS).stdout


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
