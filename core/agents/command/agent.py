"""The command agent: has a coding agent edit the champion in a sandboxed folder and takes what it made of train.py."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from core.agents import lessons, plateau
from core.agents.base import Agent, AgentContext, History, Unavailable
from core.agents.command import history_files, prompt
from core.agents.command.checks import Checks, readable
from core.agents.command.environment import CommandEnvironment, temporary
from core.agents.command.running import CommandResult, Output, Running
from core.agents.command.workspace import LESSONS, Answer, Workspace
from core.events import Notice, Repeat, Working
from core.records import PROGRAM, TRAINER, Proposal, UserError
from core.sandbox import tier
from core.sandbox.confine import NOT_CONFINED
from core.system.text import one_line
from core.trainer.check import refusal
from core.trainer.constants import read_constants

KEPT = 100  # files of what the command printed
FIRST_WAIT, LONGEST_WAIT = 30.0, 1800.0  # seconds until it is asked again after a failure; they double
SAME_FAILURES = 3  # in a row, and they are told in full
SHORTEST_SECONDS = 30.0  # that it gets, however soon the run ends
STATUS_SECONDS = 5.0  # between two lines of what it does


class Failed(Exception):
    """A run of the command that gave nothing to try. `kind` is the same for failures of the same sort."""

    def __init__(self, kind: str, reason: str, tail: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.tail = tail


class CommandAgent(Agent):
    """Runs a command for each proposal, in a folder of its own that is deleted afterwards."""

    name = "command"

    def __init__(self, environment: CommandEnvironment, minutes: float, lessons_file: Path | None = None) -> None:
        """`lessons_file`: where lessons are read and left; None for the campaign's own."""
        self._environment = environment
        self._minutes = minutes
        self._lessons_file = lessons_file
        self._context: AgentContext | None = None
        self._failures: list[str] = []  # kinds, since the last proposal
        self._remark = ""  # about its last proposal

    def begin(self, context: AgentContext) -> None:
        self._context = context
        if not (here := tier.here()).enforced:
            name = self._environment.command.name
            self._tell(f"WARNING: no sandbox ({here.why}): {name} runs with your rights and reads what you can read")

    def propose(self, history: History) -> Proposal:
        """The champion as the command edited it. Raises Unavailable where it left nothing to try."""
        assert self._context is not None, "begin comes first"
        with Workspace() as space:
            space.write(self._files(self._context, history))
            self._environment.make_home(space.private)
            checks = Checks(space, self._context, self.name)
            try:
                proposal = self._proposal(self._context, space, checks, history)
            except Failed as failed:
                raise self._unavailable(failed) from None
        self._failures, self._remark = [], ""
        return proposal

    def repeated(self, repeat: Repeat) -> None:
        earlier = repeat.earlier
        self._remark = f"Your last proposal was not run: it was the trainer of experiment {earlier.number} again."

    def _proposal(self, context: AgentContext, space: Workspace, checks: Checks, history: History) -> Proposal:
        """Asks once, and once more where what came can't be tried; what is wrong then is the trial's to find."""
        ended = self._run(context, space, checks, history, self._remark)
        left = space.answer()
        if reason := self._wrong(ended, left, history):
            self._tell(f"asked once more: {reason}")
            space.reset_answer()
            ended = self._run(context, space, checks, history, prompt.again(reason, kept=left.text is not None))
            left = space.answer()
            self._wrong(ended, left, history)
        if left.text is None:
            raise Failed("unfit", left.fault, ended.tail)
        if left.text == history.champion_text:
            raise Failed("unchanged", f"left {TRAINER} as it was{_last_line(ended)}", ended.tail)
        if left.lesson:
            self._lessons(context).append(self._environment.masked(left.lesson))
        if left.others:
            self._tell(f"only {TRAINER} is taken; the command also {left.others}")
        if ended.cut or ended.status:
            self._tell(f"its edit is taken, though {ended.cut or f'it ended with status {ended.status}'}")
        hypothesis = self._environment.masked(left.hypothesis) or _summary(ended, history.champion_text, left.text)
        return Proposal(text=left.text, hypothesis=hypothesis, agent=self.name)

    def _wrong(self, ended: CommandResult, left: Answer, history: History) -> str:
        """What is to be mended before it can be tried; empty for nothing. Raises Failed for a run that broke off."""
        unchanged = left.text is None or left.text == history.champion_text
        if ended.cut and (unchanged or not left.hypothesis):
            raise Failed("cut", f"{ended.cut}, and it had not written {TRAINER} and hypothesis.txt", ended.tail)
        if ended.status and unchanged:
            raise Failed("status", f"it ended with status {ended.status}{_last_line(ended)}", ended.tail)
        if left.text is None:
            return left.fault
        if unchanged:
            return f"{TRAINER} is the champion's, unchanged"
        if (name := self._environment.secret_in(left.text)) is not None:
            raise Failed("secret", f"it wrote the value of {name} into {TRAINER}", ended.tail)
        return _fault(left.text, history)

    def _run(
        self, context: AgentContext, space: Workspace, checks: Checks, history: History, remark: str
    ) -> CommandResult:
        environment = self._environment
        seconds = min(60 * self._minutes, max(SHORTEST_SECONDS, context.seconds_left()))
        text = prompt.task(
            history,
            seconds / 60,
            checks.command,
            checks.left,
            plateau.advice(history) or plateau.to_combine(history),
        ) + (f"\n{remark.strip()}\n" if remark else "")
        space.prompt.write_text(text, encoding="utf-8")
        output = Output(self._log(context, len(history)), environment.masked)
        with Running(
            environment.command.filled(text, space.prompt),
            policy=environment.policy(space.work, space.private, context.root, (space.prompt, *readable(checks))),
            environment=environment.environ(space.private),
            root=space.root,
            temporary=temporary(space.private),
            work=space.work,
            stdin=space.prompt if environment.command.on_stdin else None,
            output=output,
        ) as running:
            ended = running.wait(seconds, self._progress(context, output, checks))
        if ended.status == NOT_CONFINED and "the sandbox could not be applied" in ended.tail:
            why = ended.tail.splitlines()[-1]
            raise UserError(f"{why}. `autoresearch doctor` tells more; --no-sandbox runs the command with your rights")
        return ended

    def _progress(self, context: AgentContext, output: Output, checks: Checks) -> Callable[[], None]:
        """Tells the last line that was printed, now and then, and answers where a check is asked for."""
        name = self._environment.command.name
        told, told_at = "", 0.0
        context.tell(Working(self.name, f"{name} begins"))

        def look() -> None:
            nonlocal told, told_at
            checks.look()
            now = time.monotonic()
            if output.last != told and now - told_at >= STATUS_SECONDS:
                told, told_at = output.last, now
                context.tell(Working(self.name, f"{name}: {one_line(told, 120)}"))

        return look

    def _files(self, context: AgentContext, history: History) -> dict[str, str]:
        try:
            program = (context.root / PROGRAM).read_text(encoding="utf-8-sig", errors="replace")
        except OSError:
            program = history.program.prose
        learned = "".join(f"{line}\n" for line in self._lessons(context).read())
        return {TRAINER: history.champion_text, PROGRAM: program, LESSONS: learned, **history_files.files(history)}

    def _lessons(self, context: AgentContext) -> lessons.Lessons:
        return lessons.at(self._lessons_file, context.root, context.tell)

    def _log(self, context: AgentContext, number: int) -> Path:
        """The file of what the command prints for this experiment; the oldest ones go."""
        folder = context.state / "command"
        folder.mkdir(parents=True, exist_ok=True)
        for old in sorted(folder.glob("[0-9]*.txt"))[: -(KEPT - 1)]:
            with contextlib.suppress(OSError):
                old.unlink()
        path = folder / f"{number:06d}.txt"
        if path.exists() and path.stat().st_size > 2**20:
            path.unlink()
        with path.open("a", encoding="utf-8") as file:
            now = datetime.now().astimezone().isoformat(timespec="seconds")
            file.write(f"--- {now} {self._environment.command.name}, for experiment {number}\n")
        return path

    def _unavailable(self, failed: Failed) -> Unavailable:
        self._failures.append(failed.kind)
        count = len(self._failures)
        if self._failures[-SAME_FAILURES:] == [failed.kind] * SAME_FAILURES and count % SAME_FAILURES == 0:
            printed = "".join(f"\n  {line}" for line in failed.tail.splitlines()) or "\n  (nothing)"
            self._tell(
                f"{self._environment.command.name} failed {SAME_FAILURES} times in a row alike: {failed}; the end of "
                f"what it printed (data):{printed}"
            )
        return Unavailable(str(failed), min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(count - 1, 10)))

    def _tell(self, text: str) -> None:
        if self._context is not None:
            self._context.tell(Notice(self._environment.masked(text)))


def _fault(text: str, history: History) -> str:
    """Why the trainer would not be run; empty where it would."""
    if (refused := refusal(text, history.champion_text, history.program.fixed)) is not None:
        return refused.reason
    earlier = history.repeat_of(text)
    return "" if earlier is None else f"it is the trainer of experiment {earlier.number} again, {earlier.verdict}"


def _summary(ended: CommandResult, before: str, after: str) -> str:
    """A hypothesis for an edit that came without one: which constants changed, else what was printed first."""
    try:
        old, new = read_constants(before), read_constants(after)
    except UserError:
        old, new = {}, {}
    if changed := [f"{name} {old[name]!r} -> {new[name]!r}" for name in new if name in old and old[name] != new[name]]:
        return ", ".join(changed)
    return one_line(ended.first, 300) or f"an edit of {TRAINER}, for which no hypothesis was given"


def _last_line(ended: CommandResult) -> str:
    last = ended.tail.splitlines()[-1:]
    return f", its last line: {one_line(last[0], 200)}" if last else " and printed nothing"
