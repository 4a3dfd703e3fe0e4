"""The git program of this machine: found, asked for its version, and new enough."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass

from core.records import UserError
from core.system.text import one_line

LEAST = (2, 29)  # `init --initial-branch` came with 2.28, `--object-format` with 2.29
SECONDS = 30.0
_AGAIN = "then run the same command again"


@dataclass(frozen=True)
class GitProgram:
    """A git that campaigns can use."""

    path: str
    version: str


def find() -> GitProgram:
    """The git that campaigns use. UserError if there is none, if it fails (with its own words), or if it is too old."""
    name = os.environ.get("GIT_PYTHON_GIT_EXECUTABLE") or "git"  # as GitPython looks for it
    path = shutil.which(name)
    if path is None:
        raise UserError(f"a campaign needs git, and there is no {name!r} on the PATH: install it, {_AGAIN}")
    try:
        done = subprocess.run(
            [path, "version"], capture_output=True, stdin=subprocess.DEVNULL, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"{path} said nothing to `git version` within {SECONDS:g} s: mend it, {_AGAIN}") from None
    except OSError as error:
        raise UserError(f"{path} is there, but can't be started: {error.strerror}: mend it, {_AGAIN}") from None
    said = one_line(
        (done.stdout if done.returncode == 0 else done.stderr or done.stdout).decode("utf-8", "replace"), 300
    )
    if done.returncode != 0:
        status = f"exit status {done.returncode}"
        raise UserError(f"{path} is there, but it fails: {said or status} (`git version`): mend it, {_AGAIN}")
    found = re.match(r"git version ((\d+)\.(\d+)\S*)", said)
    if found is None:
        raise UserError(f"expected {path} to be git, but `git version` says {said!r}: mend the PATH, {_AGAIN}")
    if (int(found[2]), int(found[3])) < LEAST:
        least = ".".join(map(str, LEAST))
        raise UserError(f"{path} is git {found[1]}, and a campaign needs {least} or newer: install that, {_AGAIN}")
    return GitProgram(path, said.removeprefix("git version "))
