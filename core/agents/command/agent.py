"""The command agent: runs a coding agent in a sandboxed folder with the champion, and proposes its edited train.py."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from core.agents import plateau
from core.agents.base import Agent, AgentContext, History, Unavailable
from core.agents.command import history_files, prompt
from core.agents.command.checks import Checks
from core.agents.command.environment import CommandEnvironment, temporary
from core.agents.command.running import CommandResult, Output, Running
from core.agents.command.workspace import HYPOTHESIS, Answer, Workspace
from core.agents.lessons import NAME as LESSONS
from core.agents.lessons import Lessons
from core.events import Notice, Repeat, Working
from core.records import PROGRAM, TRAINER, Proposal, UserError
from core.sandbox import tier
from core.sandbox.confine import NOT_CONFINED
from core.system.files import read_text
from core.system.text import one_line
from core.trainer.check import refusal
from core.trainer.constants import read_constants
from core.trainer.literals import changed_values

KEPT = 100  # files of what the command printed
FIRST_WAIT, LONGEST_WAIT = 30.0, 1800.0  # seconds until it is asked again after a failure; they double
SAME_FAILURES = 3  # in a row, and a notice shows what was printed
SHORTEST_SECONDS = 30.0  # for the command, however soon the run ends
STATUS_SECONDS = 5.0  # between two lines about what it does


class Failed(Exception):
    """A run of the command that left nothing to try. `kind` is equal for failures of the same sort."""

    def __init__(self, kind: str, reason: str, tail: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.tail = tail


class CommandAgent(Agent):
    """Runs a command for each proposal, in a folder of its own that is deleted afterwards."""

    name = "command"

    def __init__(self, environment: CommandEnvironment, minutes: float, lessons_file: Path | None = None) -> None:
        """`minutes` is what one run of the command may take. Without `lessons_file` it is the campaign's own."""
        self._environment = environment
        self._minutes = minutes
        self._lessons_file = lessons_file
        self._failures: list[str] = []  # kinds, since the last proposal
        self._remark = ""  # about its last proposal

    def begin(self, context: AgentContext) -> None:
        super().begin(context)
        self._lessons = Lessons(self._lessons_file or context.root / LESSONS, context.tell)
        if not (here := tier.here()).enforced:
            name = self._environment.command.name
            self._notice(f"WARNING: no sandbox ({here.why}): {name} runs with your rights and reads what you can read")

    def propose(self, history: History) -> Proposal:
        """The champion as the command edited it. Raises Unavailable where it left nothing to try."""
        with Workspace() as space:
            space.write(self._files(history))
            self._environment.make_home(space.private)
            try:
                proposal = self._proposal(space, Checks(space, self.context, self.name), history)
            except Failed as failed:
                raise self._unavailable(failed) from None
        self._failures, self._remark = [], ""
        return proposal

    def repeated(self, repeat: Repeat) -> None:
        earlier = repeat.earlier
        self._remark = f"Your last proposal was not run: it was the trainer of experiment {earlier.number} again."

    def _proposal(self, space: Workspace, checks: Checks, history: History) -> Proposal:
        """Runs the command, and once more where its edit can't be tried. The second edit is tried as it is."""
        result = self._run(space, checks, history, self._remark)
        answer = space.answer()
        if reason := self._fault(result, answer, history):
            self._notice(f"asked once more: {reason}")
            space.reset_answer()
            result = self._run(space, checks, history, prompt.again(reason, kept=answer.text is not None))
            answer = space.answer()
            self._fault(result, answer, history)
        if answer.text is None:
            raise Failed("unusable", answer.fault, result.tail)
        if answer.text == history.champion_text:
            raise Failed("unchanged", f"left {TRAINER} as it was{_last_line(result)}", result.tail)
        if answer.lesson:
            self._lessons.append(self._environment.masked(answer.lesson))
        if answer.others:
            self._notice(f"only {TRAINER} is taken; the command also {answer.others}")
        if result.cut or result.status:
            self._notice(f"its edit is taken, though {result.cut or f'it ended with status {result.status}'}")
        hypothesis = self._environment.masked(answer.hypothesis) or _summary(result, history.champion_text, answer.text)
        return Proposal(text=answer.text, hypothesis=hypothesis, agent=self.name)

    def _fault(self, result: CommandResult, answer: Answer, history: History) -> str:
        """Why the edit would not be tried; empty where it would. Raises Failed where the run broke off."""
        text = answer.text
        unchanged = text is None or text == history.champion_text
        if result.cut and (unchanged or not answer.hypothesis):
            raise Failed("cut", f"{result.cut}, and it had not written {TRAINER} and {HYPOTHESIS}", result.tail)
        if result.status and unchanged:
            raise Failed("status", f"it ended with status {result.status}{_last_line(result)}", result.tail)
        if text is None:
            return answer.fault
        if unchanged:
            return f"{TRAINER} is the champion's, unchanged"
        if (name := self._environment.secret_in(text)) is not None:
            raise Failed("secret", f"it wrote the value of {name} into {TRAINER}", result.tail)
        if (refused := refusal(text, history.champion_text, history.program.fixed)) is not None:
            return refused.reason
        earlier = history.repeat_of(text)
        return "" if earlier is None else f"it is the trainer of experiment {earlier.number} again, {earlier.verdict}"

    def _run(self, space: Workspace, checks: Checks, history: History, remark: str) -> CommandResult:
        environment = self._environment
        seconds = min(60 * self._minutes, max(SHORTEST_SECONDS, self.context.seconds_left()))
        near = plateau.advice(history) or plateau.to_combine(history)
        text = prompt.task(history, seconds / 60, checks.command, checks.left, near)
        text += f"\n{remark.strip()}\n" if remark else ""
        space.prompt.write_text(text, encoding="utf-8")
        output = Output(self._log(len(history)), environment.masked)
        with Running(
            environment.command.filled(text, space.prompt),
            policy=environment.policy(space.work, space.private, self.context.root, (space.prompt, *checks.readable)),
            environment=environment.environ(space.private),
            root=space.root,
            temporary=temporary(space.private),
            work=space.work,
            stdin=space.prompt if environment.command.on_stdin else None,
            output=output,
        ) as running:
            result = running.wait(seconds, self._progress(output, checks))
        if result.status == NOT_CONFINED and "the sandbox could not be applied" in result.tail:
            why = result.tail.splitlines()[-1]
            raise UserError(f"{why}. `autoresearch doctor` tells more; --no-sandbox runs the command with your rights")
        return result

    def _progress(self, output: Output, checks: Checks) -> Callable[[], None]:
        """A function to call while the command runs: it answers checks, and reports the last printed line at times."""
        name = self._environment.command.name
        shown, shown_at = "", 0.0
        self.context.tell(Working(self.name, f"{name} begins"))

        def look() -> None:
            nonlocal shown, shown_at
            checks.look()
            now = time.monotonic()
            if output.last != shown and now - shown_at >= STATUS_SECONDS:
                shown, shown_at = output.last, now
                self.context.tell(Working(self.name, f"{name}: {one_line(shown, 120)}"))

        return look

    def _files(self, history: History) -> dict[str, str]:
        try:
            program = read_text(self.context.root / PROGRAM)
        except UserError:
            program = history.program.prose
        lessons = "".join(f"{line}\n" for line in self._lessons.read())
        return {TRAINER: history.champion_text, PROGRAM: program, LESSONS: lessons, **history_files.files(history)}

    def _log(self, number: int) -> Path:
        """The file for what the command prints for this experiment. Deletes the oldest such files."""
        folder = self.context.state / "command"
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
            self._notice(
                f"{self._environment.command.name} failed {SAME_FAILURES} times in a row alike: {failed}; the end of "
                f"what it printed (data):{printed}"
            )
        return Unavailable(str(failed), min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(count - 1, 10)))

    def _notice(self, text: str) -> None:
        self.context.tell(Notice(self._environment.masked(text)))


def _summary(result: CommandResult, before: str, after: str) -> str:
    """A hypothesis for an edit that came without one: the changed constants, else the first line that was printed."""
    with contextlib.suppress(UserError):
        if changed := changed_values(read_constants(before), read_constants(after)):
            return changed
    return one_line(result.first, 300) or f"an edit of {TRAINER}, for which no hypothesis was given"


def _last_line(result: CommandResult) -> str:
    last = result.tail.splitlines()[-1:]
    return f", its last line: {one_line(last[0], 200)}" if last else " and printed nothing"
