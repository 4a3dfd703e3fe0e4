"""The supervisor's side of a trial's process: starts it under a reaper, talks to it over a channel, and ends it."""

from __future__ import annotations

import builtins
import contextlib
import errno
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

from core.records import TRAINER, UserError
from core.sandbox import tier
from core.sandbox.confine import NOT_CONFINED
from core.sandbox.policy import confined
from core.sandbox.reaper import Outcome
from core.sandbox.spawn import ReapedProcess
from core.system import scratch
from core.system.signals import signals_blocked
from core.trial import compile_cache
from core.trial.channel import ChannelError, ForeignChannel, Message, NotRead
from core.trial.environment import TrialEnvironment
from core.trial.shared_arrays import raising_no_space
from core.trial.spec import encoded

HEAD_BYTES, TAIL_BYTES = 64 * 2**10, 192 * 2**10  # of its output that are kept
_NOT_REACHED = (errno.ENETUNREACH, errno.ECONNREFUSED, socket.EAI_AGAIN, socket.EAI_NONAME)
OUTPUT_LIMIT = 64 * 2**20  # bytes, past which the trial has failed


class TrialFailed(Exception):
    """The trial is over without a score. The text is the reason."""

    def __init__(self, reason: str, verdict: Literal["stopped", "crash", "invalid"] = "crash") -> None:
        super().__init__(reason)
        self.verdict = verdict


@contextlib.contextmanager
def unexpected_as_crash(what: str) -> Iterator[None]:
    """Turns an error that nobody foresaw into the trial's crash: what a trial sends must not end the run.

    `what` was being served. An assertion that fails is this program's own fault, and OSError the machine's.
    """
    try:
        yield
    except (TrialFailed, UserError, OSError, AssertionError):
        raise
    except Exception as error:
        raise TrialFailed(f"{what} could not be served: {type(error).__name__}: {error}") from error


def _of_the_sandbox(reason: str) -> str:
    """What the sandbox has to do with a failure; empty if nothing, as far as its text shows."""
    if reason.startswith(f"PermissionError: [Errno {errno.EPERM}]"):
        if sys.platform != "linux":
            return "; the sandbox refuses networks, and sockets by path"
        where = "127.0.0.1 too where it can't make a network namespace, which `autoresearch doctor` tells"
        return f"; the sandbox refuses networks ({where}) and sockets outside of the trial's own folder"
    if any(f"[Errno {number}]" in reason for number in _NOT_REACHED):
        return "; a trial reaches no network: on 127.0.0.1 only its own processes answer"
    return ""


class CannotStart(UserError):
    """The process could not start as the user asked for it: there is no such device, or no confinement."""


class Process:
    """A trial's process. Use as a context manager, or call `end`: on return, it and all it started have ended.

    It writes in its `scratch`, and reads the trainer and what `hand` puts into a folder beside that.
    """

    @signals_blocked()  # as soon as there is a folder, there is a reaper that deletes it
    def __init__(
        self, role: Literal["train", "score"], trainer: str, environment: TrialEnvironment, usage: Path
    ) -> None:
        """`trainer` is a text, `usage` the reaper's record. UserError or NoSpace where there is no room for it."""
        self.role = role
        self._trainer = encoded(trainer)
        self._root = scratch.make()
        self.scratch, self._inbox = self._root / "scratch", self._root / "inbox"
        self.cache = environment.cache(self.scratch)
        try:
            with raising_no_space(self._root):
                self._reaper = self._start(environment, usage)
        except BaseException:
            scratch.remove(self._root)
            raise
        assert self._reaper.stdin and self._reaper.stdout
        self._channel = ForeignChannel(self._reaper.stdout, self._reaper.stdin)
        self._messages: queue.Queue[Message | ChannelError | None] = queue.Queue(64)
        self._head, self._tail, self._printed = b"", b"", 0
        self._ready = False  # before that, only the fixed side has run
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._drainer = threading.Thread(target=self._drain, daemon=True)
        self._listener.start()
        self._drainer.start()
        try:
            with raising_no_space(self._root):
                if role == "train":
                    compile_cache.copy(compile_cache.store(environment.backend), self.cache)
                else:  # it would find nothing there: what a scorer compiles enters no store
                    self.cache.mkdir()
            where = {"backend": environment.backend, "device": environment.device}
            self.send("start", time.monotonic(), role=role, trainer=str(self._inbox / TRAINER), **where)
        except BaseException:
            self.end()
            raise

    def _start(self, environment: TrialEnvironment, usage: Path) -> ReapedProcess:
        """Starts the process, confined, under its reaper."""
        self.scratch.mkdir()
        self._inbox.mkdir()
        (self._inbox / TRAINER).write_bytes(self._trainer)
        command = [sys.executable, "-P", "-m", "core.trial.child.worker"]
        policy = environment.policy(self.scratch, also_read=(self._inbox,))
        return ReapedProcess(
            confined(command, policy, self._root),
            folder=self._root,
            private=self.scratch,
            usage=usage,
            cwd=self.scratch,
            environment=environment.variables(self.scratch, training=self.role == "train"),
            sockets=self.scratch if tier.here().enforced else None,
        )

    def send(self, kind: str, deadline: float, **content: Any) -> None:
        """Sends a message. TrialFailed if the process is gone, or has read too little to take it by `deadline`.

        `deadline`: monotonic seconds. Nobody waits for a process that reads: there is room for many messages.
        """
        if self._channel.broken:
            # Its last message explains its end better than a broken pipe does.
            with contextlib.suppress(queue.Empty):
                while (message := self._messages.get(timeout=5)) is not None:
                    if not isinstance(message, ChannelError):
                        self._raise_if_failed(message)
            raise self._gone()
        try:
            self._channel.post(kind, deadline, **content)
        except NotRead as error:
            raise TrialFailed(f"does not read what it asked for: {error}") from None

    def receive(self, deadline: float, silence: float, late: TrialFailed) -> Message:
        """The next message. Raises `late` if none comes by `deadline` (monotonic seconds).

        TrialFailed as well if none comes within `silence` seconds, or if the process has failed.
        """
        entered = time.monotonic()
        while True:
            now = time.monotonic()
            if self._printed > OUTPUT_LIMIT:
                raise TrialFailed(f"printed more than {OUTPUT_LIMIT // 2**20} MB")
            if now >= deadline:
                raise late
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
        """The next message, which must be of that kind. `what` is the reason of a failure at the deadline."""
        message = self.receive(deadline, silence, TrialFailed(what))
        if message["type"] != kind:
            # What a scoring process says may be about held-out text, or meant for an agent.
            came = "something else" if self.role == "score" else repr(message["type"][:40])
            raise TrialFailed(f"broke the protocol: {came} came where {kind!r} was expected")
        return message

    def hand(self, path: Path) -> Path:
        """Gives the process a copy of a file, which it can only read. Returns where that lies."""
        with raising_no_space(self._inbox):
            shutil.copyfile(path, self._inbox / path.name)
        return self._inbox / path.name

    @signals_blocked()
    def end(self) -> None:
        """Ends the process and everything it started, and deletes its scratch. Safe to call again."""
        self._reaper.end()
        # The listener may wait for room in the queue; then it can't see the end of the channel.
        deadline = time.monotonic() + 10
        while (self._listener.is_alive() or self._drainer.is_alive()) and time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):
                while True:
                    self._messages.get_nowait()
            self._listener.join(0.005)
            self._drainer.join(0.005)
        self._channel.close()
        scratch.remove(self._root)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Ends it. UserError instead of a failure if somebody deleted its folder, which a confined trial can't.

        TrialFailed where the folder was missed because the process had ended, and its reaper had deleted it.
        """
        self.end()
        if isinstance(error, (OSError, TrialFailed)) and self.outcome().folder_gone and tier.here().enforced:
            raise UserError(
                f"{self._root}, where a trial ran, was deleted meanwhile: something cleans {self._root.parent}. Keep "
                "it from that, or set TMPDIR to another folder, and run the same command again"
            ) from error
        if isinstance(error, FileNotFoundError) and self._root in Path(str(error.filename)).parents:
            raise self._gone() from error

    def outcome(self) -> Outcome:
        """How the process ended, as the reaper recorded it."""
        return self._reaper.outcome()

    def output(self) -> str:
        """What it printed on both streams: the first and the last kilobytes, and how much lay between."""
        left_out = self._printed - len(self._head) - len(self._tail)
        gap = f"\n[... {left_out} bytes left out ...]\n".encode() if left_out > 0 else b""
        return (self._head + gap + self._tail).decode("utf-8", "replace")

    def _raise_if_failed(self, message: Message) -> None:
        if message["type"] == "failed":
            reason = str(message.get("error"))[:1000]
            if self.role == "score" and self._ready:
                reason = _class_and_line(reason, self._trainer)
            elif tier.here().enforced:
                reason += _of_the_sandbox(reason)
            raise CannotStart(reason) if message.get("user_error") is True and not self._ready else TrialFailed(reason)

    def _gone(self) -> TrialFailed | CannotStart:
        """Why the process is gone."""
        try:
            self._reaper.wait(40)
        except subprocess.TimeoutExpired:
            return TrialFailed("closed its channel and went on running")
        outcome = self.outcome()
        if outcome.exceeded:
            return TrialFailed(outcome.exceeded)
        returncode = outcome.returncode
        if returncode == NOT_CONFINED and not self._ready:
            self._drainer.join(5)
            reason = self.output().strip().splitlines()[-1:] or ["no reason given"]
            return CannotStart(
                f"{reason[0]}. `autoresearch doctor` tells more; --no-sandbox runs trials with your rights"
            )
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
        assert self._reaper.stderr
        with self._reaper.stderr as stream:
            while part := stream.read1(65536):  # type: ignore[attr-defined]
                self._printed += len(part)
                room = HEAD_BYTES - len(self._head)
                self._head += part[:room]
                self._tail = (self._tail + part[room:])[-TAIL_BYTES:] if len(part) > room else self._tail


def _class_and_line(reason: str, trainer: bytes) -> str:
    """What a reason of a process that has seen held-out text may say: nothing that the process could choose freely."""
    name, _, rest = reason.partition(" ")
    kind = getattr(builtins, name, None)
    known = name if isinstance(kind, type) and issubclass(kind, BaseException) else "an exception"
    place = re.fullmatch(r"\(line (\d{1,6}) of .*\)", rest)
    return f"{known} (line {place[1]} of {TRAINER})" if place and int(place[1]) <= len(trainer.splitlines()) else known
