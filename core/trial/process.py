"""A process of a trial as the supervisor holds it: started under a keeper, heard over a channel, ended for good."""

from __future__ import annotations

import builtins
import contextlib
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, cast

import psutil

from core.interrupts import deferred
from core.trial.channel import Channel, ChannelError, Message
from core.trial.environment import scrubbed

HEAD_BYTES = 64 * 1024
TAIL_BYTES = 192 * 1024
OUTPUT_LIMIT = 64 * 2**20


class TrialFailed(Exception):
    """The trial is over without a score. `verdict` is crash or invalid; the text is the reason."""

    def __init__(self, reason: str, verdict: str = "crash") -> None:
        super().__init__(reason)
        self.verdict = verdict


class Mistake(Exception):
    """The process says that what the user asked for can't be had: told as a user's error."""


def _class_and_line(reason: str, trainer: Path) -> str:
    """What may be told of a failure in a process that has seen held-out text: nothing that it could choose freely."""
    name, _, rest = reason.partition(" ")
    kind = getattr(builtins, name, None)
    told = name if isinstance(kind, type) and issubclass(kind, BaseException) else "an exception"
    place = re.fullmatch(r"\(line (\d{1,6}) of .*\)", rest)
    lines = len(trainer.read_bytes().splitlines()) if place and trainer.is_file() else 0
    return f"{told} (line {place[1]} of {trainer.name})" if place and int(place[1]) <= lines else told


class Process:
    """A trial's process of one role. Use as a context manager: on leaving, it and all it started have ended."""

    @deferred()  # from its scratch's folder on there is a keeper who deletes it
    def __init__(
        self, role: str, trainer: Path, backend: str, device: str, environment: Mapping[str, str], usage: Path
    ) -> None:
        self.role = role
        self._trainer = trainer
        self.scratch = Path(tempfile.mkdtemp(prefix="autoresearch-"))
        self._usage = usage
        self._usage.unlink(missing_ok=True)
        python = [sys.executable, "-P", "-m"]
        command = [*python, "core.trial.keeper", str(os.getpid()), str(usage), str(self.scratch)]
        self._keeper = subprocess.Popen(
            [*command, *python, "core.trial.launch"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.scratch,
            env=scrubbed(self.scratch, environment),
            start_new_session=sys.platform != "win32",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        assert self._keeper.stdin and self._keeper.stdout and self._keeper.stderr
        self._channel = Channel(cast(BinaryIO, self._keeper.stdout), cast(BinaryIO, self._keeper.stdin))
        self._messages: queue.Queue[Message | ChannelError | None] = queue.Queue(64)
        self._head, self._tail, self._printed = b"", b"", 0
        self._ready = False  # before that, only the fixed side has run
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._listen, self._drain)]
        for thread in self._threads:
            thread.start()
        self.send("start", role=role, trainer=str(trainer), backend=backend, device=device)

    def send(self, kind: str, **content: Any) -> None:
        """Sends a message; TrialFailed if the process is gone."""
        try:
            self._channel.send(kind, **content)
        except (OSError, ValueError):
            # What it said last explains its end better than a broken pipe does.
            with contextlib.suppress(queue.Empty):
                while (message := self._messages.get(timeout=5)) is not None:
                    if not isinstance(message, ChannelError):
                        self._raise_if_failed(message)
            raise self._gone() from None

    def receive(self, deadline: float, silence: float, what: str) -> Message:
        """The next message before `deadline` (monotonic seconds) and within `silence` seconds, else TrialFailed.

        `what` names the limit that the deadline stands for.
        """
        entered = time.monotonic()
        while True:
            now = time.monotonic()
            if self._printed > OUTPUT_LIMIT:
                raise TrialFailed(f"printed more than {OUTPUT_LIMIT // 2**20} MB")
            if now >= deadline:
                raise TrialFailed(what)
            if now - entered >= silence:
                raise TrialFailed(f"silent for {silence:.0f} s")
            try:
                wait = min(deadline, entered + silence) - now
                message = self._messages.get(timeout=max(0.0, min(wait, 0.5)))
            except queue.Empty:
                continue
            if isinstance(message, ChannelError):
                raise TrialFailed(f"broke the protocol: {message}")
            if message is None:
                raise self._gone()
            self._raise_if_failed(message)
            self._ready = self._ready or message["type"] == "ready"
            return message

    def expect(self, kind: str, deadline: float, silence: float, what: str) -> Message:
        """The next message, which must be of that kind."""
        message = self.receive(deadline, silence, what)
        if message["type"] != kind:
            # What a scoring process says may be about held-out text, or meant for an agent.
            came = "something else" if self.role == "score" else repr(message["type"][:40])
            raise TrialFailed(f"broke the protocol: {came} came where {kind!r} was expected")
        return message

    @deferred()
    def end(self) -> None:
        """Ends the process and everything it started, and deletes its scratch. Safe to call again."""
        if self._keeper.poll() is None:
            with contextlib.suppress(OSError):
                self._keeper.terminate()
            try:
                self._keeper.wait(40)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(OSError):
                    if sys.platform == "win32":
                        self._keeper.kill()
                    else:
                        os.killpg(self._keeper.pid, signal.SIGKILL)
                self._keeper.wait()
        if not self._usage.exists():
            self._sweep()
        # The listener may wait for room in the queue; room lets it see the end of the channel.
        deadline = time.monotonic() + 10
        while any(thread.is_alive() for thread in self._threads) and time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):
                self._messages.get_nowait()
            self._threads[0].join(0.005)
            self._threads[1].join(0.005)
        self._channel.close()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def usage(self) -> tuple[int | None, float | None]:
        """Exit status (negative: a signal) and peak memory in MB, as the keeper saw them; after the end."""
        with contextlib.suppress(OSError, ValueError):
            told = json.loads(self._usage.read_text())
            return told["returncode"], told["peak_memory_mb"]
        return None, None

    def output(self) -> str:
        """What it printed, both streams: the first and the last kilobytes, with what was left out named."""
        left_out = self._printed - len(self._head) - len(self._tail)
        gap = f"\n[... {left_out} bytes left out ...]\n".encode() if left_out > 0 else b""
        return (self._head + gap + self._tail).decode("utf-8", "replace")

    def _sweep(self) -> None:
        """Kills what a keeper that was killed itself has left: processes whose home is this scratch."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get("HOME") == str(self.scratch):
                    process.kill()

    def _raise_if_failed(self, message: Message) -> None:
        if message["type"] == "failed":
            reason = str(message.get("error"))[:1000]
            if self.role == "score" and self._ready:
                reason = _class_and_line(reason, self._trainer)
            raise Mistake(reason) if message.get("mistake") is True and not self._ready else TrialFailed(reason)

    def _gone(self) -> TrialFailed:
        try:
            self._keeper.wait(40)
        except subprocess.TimeoutExpired:
            return TrialFailed("closed its channel and went on running")
        returncode, _ = self.usage()
        if returncode is not None and returncode < 0:
            with contextlib.suppress(ValueError):
                return TrialFailed(f"ended by {signal.Signals(-returncode).name}")
        return TrialFailed(f"ended with exit status {returncode} and no word")

    def _listen(self) -> None:
        while True:
            try:
                message: Message | ChannelError | None = self._channel.receive()
            except ChannelError as error:
                message = error
            except (OSError, ValueError):
                message = None
            self._messages.put(message)
            if message is None or isinstance(message, ChannelError):
                return

    def _drain(self) -> None:
        assert self._keeper.stderr
        with self._keeper.stderr as stream:
            while part := stream.read1(65536):  # type: ignore[attr-defined]
                self._printed += len(part)
                room = HEAD_BYTES - len(self._head)
                self._head += part[:room]
                self._tail = (self._tail + part[room:])[-TAIL_BYTES:] if len(part) > room else self._tail

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
