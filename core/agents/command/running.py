"""Runs a coding agent's command confined and under a reaper; its output is bounded, cleaned and written to a file."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from core.sandbox.policy import SandboxPolicy, confined
from core.sandbox.spawn import ReapedProcess
from core.system.signals import signals_blocked
from core.system.text import clean

LOG_BYTES = 2**20  # of its output that are written as they come; of the rest only the end is
TAIL_BYTES = 64 * 2**10
LINE_BYTES = 64 * 2**10
LINE_CHARACTERS = 4000
POLL_SECONDS = 0.25


@dataclass(frozen=True)
class CommandResult:
    """How a command ended and what it printed: data, whatever it says."""

    status: int | None  # exit status; negative: a signal
    cut: str  # the limit that ended it, as a reason; empty if none did
    first: str  # the first line that it printed
    tail: str  # the last lines


class Output:
    """Writes what a command prints to a file, line by line, without control characters and secrets."""

    def __init__(self, log: Path, masked: Callable[[str], str]) -> None:
        self.first, self.last = "", ""
        self._masked = masked
        self._file = log.open("a", encoding="utf-8", newline="\n")
        self._written = log.stat().st_size
        self._rest = b""  # of a line that has no end yet
        self._dropping = False  # the rest of a line that was too long
        self._beyond, self._end = 0, b""  # bytes that came when the file was full, and the last of them
        self._recent: list[str] = []

    def feed(self, data: bytes) -> None:
        """Takes the next bytes that the command has printed."""
        if self._written >= LOG_BYTES:
            self._beyond += len(data)
            self._end = (self._end + data)[-TAIL_BYTES:]
            if lines := [line for line in re.split(rb"[\r\n]+", self._end)[1:-1] if line.strip()]:
                self.last = self._clean(lines[-1]) or self.last
            return
        *lines, self._rest = re.split(rb"[\r\n]", self._rest + data)
        for line in lines:
            if not self._dropping:
                self._write(line)
            self._dropping = False
        if len(self._rest) > LINE_BYTES:
            if not self._dropping:
                self._write(self._rest[:LINE_BYTES])
            self._rest, self._dropping = b"", True

    def close(self) -> None:
        """Writes how much was left out, and the last lines of it."""
        if not self._dropping:
            self._write(self._rest)
        if self._beyond:
            _, *lines = re.split(rb"[\r\n]+", self._end)  # the first one may lack its beginning
            self._line(f"[... {self._beyond} bytes more, of which the end follows ...]")
            for line in lines:
                self._write(line)
        with contextlib.suppress(OSError):
            self._file.close()

    def tail(self) -> str:
        return "\n".join(self._recent)

    def _write(self, raw: bytes) -> None:
        line = self._clean(raw)
        if line:
            self.first = self.first or line
            self.last = line
            self._recent = [*self._recent, line][-20:]
            self._line(line)

    def _line(self, line: str) -> None:
        self._written += len(line) + 1
        with contextlib.suppress(OSError):  # a full disk must not keep the command from printing
            self._file.write(line + "\n")
            self._file.flush()

    def _clean(self, raw: bytes) -> str:
        text = self._masked(clean(raw.decode("utf-8", "replace"))).rstrip()
        return text if len(text) <= LINE_CHARACTERS else f"{text[:LINE_CHARACTERS]} ..."


class Running:
    """A command under its reaper. A context manager: on leaving, it and all it started have ended."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        policy: SandboxPolicy,
        environment: Mapping[str, str],
        root: Path,
        temporary: Path,
        work: Path,
        stdin: Path | None,
        output: Output,
    ) -> None:
        """`root` holds the other folders; the reaper deletes it if this process is killed. TMPDIR is `temporary`."""
        self._output = output
        self._reaper: ReapedProcess | None = None
        self._reader = threading.Thread(target=self._read, daemon=True)
        try:
            # An interrupt waits until it is known what to end.
            with open(os.devnull if stdin is None else stdin, "rb") as given, signals_blocked():
                self._reaper = ReapedProcess(
                    confined(command, policy, root),
                    folder=root,
                    private=temporary,
                    usage=root / "usage.json",
                    cwd=work,
                    environment=environment,
                    stdin=given,
                    stderr=subprocess.STDOUT,
                    keep_folder=True,
                )
                self._reader.start()
        except BaseException:
            self.end()
            raise

    def wait(self, seconds: float, meanwhile: Callable[[], None]) -> CommandResult:
        """Waits until the command ends, and ends it after `seconds`.

        `meanwhile` is called now and then; the time that it takes doesn't count.
        """
        assert self._reaper is not None
        deadline = time.monotonic() + seconds
        cut = ""
        while self._reaper.poll() is None:
            begun = time.monotonic()
            meanwhile()
            deadline += time.monotonic() - begun
            if time.monotonic() >= deadline:
                cut = f"its {seconds / 60:.3g} minutes were over"
                break
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._reaper.wait(POLL_SECONDS)
        self.end()
        outcome = self._reaper.outcome()
        return CommandResult(outcome.returncode, cut or outcome.exceeded, self._output.first, self._output.tail())

    @signals_blocked()
    def end(self) -> None:
        """Ends the command and everything it started. Safe to call again."""
        if self._reaper is None:
            return
        self._reaper.end()
        if self._reader.ident is not None:
            self._reader.join(10)

    def _read(self) -> None:
        assert self._reaper is not None and self._reaper.stdout is not None
        with self._reaper.stdout as stream:
            while part := stream.read1(65536):  # type: ignore[attr-defined]
                self._output.feed(part)
        self._output.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()
