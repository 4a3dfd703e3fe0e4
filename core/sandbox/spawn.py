"""Starts a command under a reaper, ends both, and reads what the reaper recorded of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from core.sandbox.janitor import end_processes
from core.sandbox.limits import machine_limits
from core.sandbox.reaper import Outcome
from core.system.files import read_json

END_SECONDS = 40.0  # that a reaper has to end everything; it takes at most 30


class ReapedProcess(subprocess.Popen[bytes]):
    """A command under its reaper. The streams are the command's; `pid`, `wait` and `returncode` are the reaper's.

    Call `end` in every case. Leaving it as a context manager only waits.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        folder: Path,
        private: Path,
        usage: Path,
        cwd: Path,
        environment: Mapping[str, str],
        stdin: int | BinaryIO = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
        keep_folder: bool = False,
        sockets: Path | None = None,
    ) -> None:
        """Starts both. At the end the reaper writes an `Outcome` to `usage` and deletes `folder`; with `keep_folder` it
        deletes it only if this process has gone. `private` is a folder that only this command's environment names, in
        TMPDIR or HOME: by it `end` finds the processes that a killed reaper left. `sockets` is the folder below which
        the processes of a confined command may connect to each other; None: nowhere.
        """
        self._private, self._usage = private, usage
        usage.unlink(missing_ok=True)
        reaper = [sys.executable, "-P", "-m", "core.sandbox.reaper", *(["--keep"] if keep_folder else [])]
        reaper += ["--sockets", str(sockets)] if sockets is not None else []
        super().__init__(
            [*reaper, str(os.getpid()), str(usage), str(folder), json.dumps(machine_limits()), *command],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=cwd,
            env=dict(environment),
            start_new_session=sys.platform != "win32",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )

    def end(self) -> None:
        """Has the reaper end everything and waits for that. Safe to call again.

        A reaper that doesn't answer is killed with its group. What a killed reaper left is ended here.
        """
        if self.poll() is None:
            with contextlib.suppress(OSError):
                self.terminate()
            try:
                self.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(OSError):
                    if sys.platform == "win32":
                        self.kill()
                    else:
                        os.killpg(self.pid, signal.SIGKILL)
                self.wait()
        if not self._usage.exists():
            end_processes(self._private)

    def outcome(self) -> Outcome:
        """How the command ended. All fields are unknown before the end, and if the reaper was killed."""
        record = read_json(self._usage) or {}
        return Outcome(**{key: value for key, value in record.items() if key in Outcome._fields})
