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
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, cast

import psutil

from core.sandbox.confine import NOT_CONFINED
from core.sandbox.limits import limits
from core.sandbox.policy import confined
from core.system.signals import deferred
from core.trial import compile_cache
from core.trial.channel import Channel, ChannelError, Message
from core.trial.environment import Surroundings
from core.trial.slots import room_told

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


def end_keeper(keeper: subprocess.Popen[bytes]) -> None:
    """Has a keeper end what it keeps and waits for that; one that doesn't answer is killed with its group."""
    if keeper.poll() is None:
        with contextlib.suppress(OSError):
            keeper.terminate()
        try:
            keeper.wait(40)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(OSError):
                if sys.platform == "win32":
                    keeper.kill()
                else:
                    os.killpg(keeper.pid, signal.SIGKILL)
            keeper.wait()


def sweep(variable: str, scratch: Path) -> None:
    """Kills what a keeper that was killed itself has left: processes in whose environment the variable is `scratch`."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(variable) == str(scratch):
                process.kill()


class Process:
    """A trial's process of one role. Use as a context manager: on leaving, it and all it started have ended.

    It writes in its `scratch`, and reads what `hand` puts into a folder beside it.
    """

    @deferred()  # from its scratch's folder on there is a keeper who deletes it
    def __init__(
        self, role: str, trainer: Path, backend: str, device: str, environment: Surroundings, usage: Path
    ) -> None:
        self.role = role
        self._trainer = trainer
        self._usage = usage
        self._usage.unlink(missing_ok=True)
        with room_told(Path(tempfile.gettempdir())):
            self._root = Path(tempfile.mkdtemp(prefix="autoresearch-")).resolve()
        self.scratch, self._inbox = self._root / "scratch", self._root / "inbox"
        self.cache = environment.cache(self.scratch)
        try:
            with room_told(self._root):
                self._keeper = self._kept(environment)
        except BaseException:
            shutil.rmtree(self._root, ignore_errors=True)
            raise
        assert self._keeper.stdin and self._keeper.stdout and self._keeper.stderr
        self._channel = Channel(cast(BinaryIO, self._keeper.stdout), cast(BinaryIO, self._keeper.stdin))
        self._messages: queue.Queue[Message | ChannelError | None] = queue.Queue(64)
        self._head, self._tail, self._printed = b"", b"", 0
        self._ready = False  # before that, only the fixed side has run
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._listen, self._drain)]
        for thread in self._threads:
            thread.start()
        try:
            with room_told(self._root):
                compile_cache.copy(compile_cache.store(backend), self.cache)
            self.send("start", role=role, trainer=str(trainer), backend=backend, device=device)
        except BaseException:
            self.end()
            raise

    def _kept(self, environment: Surroundings) -> subprocess.Popen[bytes]:
        """The process under its keeper, confined."""
        self.scratch.mkdir()
        self._inbox.mkdir()
        python = [sys.executable, "-P", "-m"]
        keeper = [*python, "core.sandbox.reaper", str(os.getpid()), str(self._usage), str(self._root), limits().text()]
        policy = environment.policy(self.scratch, also_read=(self._trainer, self._inbox))
        return subprocess.Popen(
            [*keeper, *confined([*python, "core.trial.child.worker"], policy, self._root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.scratch,
            env=environment.variables(self.scratch),
            start_new_session=sys.platform != "win32",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )

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

    def hand(self, path: Path) -> Path:
        """Gives the process a copy of a file that it can only read; where it finds it."""
        with room_told(self._inbox):
            shutil.copyfile(path, self._inbox / path.name)
        return self._inbox / path.name

    @deferred()
    def end(self) -> None:
        """Ends the process and everything it started, and deletes its scratch. Safe to call again."""
        end_keeper(self._keeper)
        if not self._usage.exists():
            sweep("HOME", self.scratch)
        # The listener may wait for room in the queue; room lets it see the end of the channel.
        deadline = time.monotonic() + 10
        while any(thread.is_alive() for thread in self._threads) and time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):
                self._messages.get_nowait()
            self._threads[0].join(0.005)
            self._threads[1].join(0.005)
        self._channel.close()
        shutil.rmtree(self._root, ignore_errors=True)

    def usage(self) -> tuple[int | None, float | None]:
        """Exit status (negative: a signal) and peak memory in MB, as the keeper saw them; after the end."""
        told = self._told()
        return told.get("returncode"), told.get("peak_memory_mb")

    def output(self) -> str:
        """What it printed, both streams: the first and the last kilobytes, with what was left out named."""
        left_out = self._printed - len(self._head) - len(self._tail)
        gap = f"\n[... {left_out} bytes left out ...]\n".encode() if left_out > 0 else b""
        return (self._head + gap + self._tail).decode("utf-8", "replace")

    def _raise_if_failed(self, message: Message) -> None:
        if message["type"] == "failed":
            reason = str(message.get("error"))[:1000]
            if self.role == "score" and self._ready:
                reason = _class_and_line(reason, self._trainer)
            raise Mistake(reason) if message.get("mistake") is True and not self._ready else TrialFailed(reason)

    def _told(self) -> dict[str, Any]:
        """What the keeper wrote: returncode, peak_memory_mb, and exceeded, the limit that the process did not keep."""
        with contextlib.suppress(OSError, ValueError):
            told: dict[str, Any] = json.loads(self._usage.read_text())
            return told
        return {}

    def _gone(self) -> TrialFailed | Mistake:
        try:
            self._keeper.wait(40)
        except subprocess.TimeoutExpired:
            return TrialFailed("closed its channel and went on running")
        if exceeded := self._told().get("exceeded"):
            return TrialFailed(exceeded)
        returncode, _ = self.usage()
        if returncode == NOT_CONFINED and not self._ready:
            self._threads[1].join(5)
            reason = self.output().strip().splitlines()[-1:] or ["no reason given"]
            return Mistake(f"{reason[0]}. `autoresearch doctor` tells more; --no-sandbox runs trials with your rights")
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
