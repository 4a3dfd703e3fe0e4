"""Progress of long work: bars on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.progress import Progress as RichProgress
from rich.table import Column as RichColumn
from rich.text import Text

from core import events
from core.system import text
from core.system.text import count, one_line

if TYPE_CHECKING:
    from core.events import Progress as TrialProgress

# Without a terminal, a line is printed when the phase changes and then once in so many seconds.
PLAIN_SECONDS = 30.0
WIDEST_BAR, NARROWEST_BAR = 30, 8
TIME_WIDTH = len("59m 59s left")
KNOWN = 0.03  # of a phase: from then on the time that is left can be told


class TimeLeft(ProgressColumn):
    """The time that a task's phase still takes, if it goes on as fast; until that is known, how long it has run."""

    def render(self, task: Task) -> Text:
        now, begun = time.monotonic(), task.fields["begun"]
        if not task.completed or task.completed < KNOWN:
            return Text(text.seconds(now - begun).rjust(TIME_WIDTH), style="cyan")
        then = task.fields["reached"]
        left = (then - begun) * (1 - task.completed) / task.completed - (now - then)
        return Text(f"{text.seconds(max(0.0, left))} left".rjust(TIME_WIDTH), style="cyan")


class Bars:
    """Progress bars of named tasks. A context manager; the bars are erased at its end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = BarColumn(bar_width=WIDEST_BAR)
        self._progress = RichProgress(
            SpinnerColumn(),
            TextColumn("{task.description}", table_column=RichColumn(no_wrap=True)),
            self._bar,
            TextColumn("{task.fields[detail]}", table_column=RichColumn(no_wrap=True)),
            TimeLeft(),
            console=console,
            transient=True,
            refresh_per_second=8,
        )
        self._tasks: dict[str, TaskID] = {}
        self._phase = ""
        self._begun = 0.0  # of the phase
        self._printed = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Erases the bars."""
        if self._tasks:
            self._progress.stop()

    def show(self, name: str, description: str, fraction: float | None, *details: str) -> None:
        """Updates the task `name`. `fraction` is 0 to 1, or None if the end is unknown.

        Where the line is too long for the terminal, the bar shrinks first; then the last of `details` is left out.
        """
        now, phase = time.monotonic(), f"{name}/{description}"
        if begins := phase != self._phase:
            self._phase, self._begun = phase, now
        if not self._console.is_terminal:
            if begins or now - self._printed >= PLAIN_SECONDS:
                self._printed = now
                self._plain(description, fraction, "  ".join(filter(None, details)))
            return
        self._progress.start()  # the first call starts it, later ones do nothing
        title, bar, detail = _in_one_line(self._console.width, description, [one for one in details if one])
        self._bar.bar_width = bar
        begun, total = self._begun, None if fraction is None else 1.0
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(title, total=total, detail=detail, begun=begun, reached=now)
        self._progress.update(
            self._tasks[name],
            description=title,
            total=total,
            completed=fraction or 0,
            detail=detail,
            begun=begun,
            reached=now,
        )

    def _plain(self, description: str, fraction: float | None, detail: str) -> None:
        share = "" if fraction is None else f" {fraction:4.0%} "
        line = f"{description}{share} {detail}" if detail or fraction else description
        self._console.print(Text(line.rstrip()), soft_wrap=True)


def _in_one_line(width: int, description: str, details: list[str]) -> tuple[str, int, str]:
    """What fits beside the spinner and the time: the description, the bar's width, the details that have room."""
    room = width - len("* ") - 3 - TIME_WIDTH  # with a space between two columns
    description = one_line(description, max(10, room - NARROWEST_BAR))
    room -= len(description)
    if len(details) == 1:
        details = [one_line(details[0], max(1, room - NARROWEST_BAR))]
    while details and len("  ".join(details)) + NARROWEST_BAR > room:
        details = details[:-1]
    detail = "  ".join(details)
    return description, min(WIDEST_BAR, max(1, room - len(detail))), detail


class TrialBar(Bars):
    """A bar with one trial's phase, step, loss and speed."""

    def __init__(self, console: Console, name: str = "") -> None:
        super().__init__(console)
        self._name = name

    def __call__(self, progress: TrialProgress) -> None:
        self.show(
            "trial",
            f"{self._name}{events.PHASES[progress.phase]}",
            None if progress.phase == "startup" else progress.fraction,  # of the allowance: it says nothing of the end
            f"step {progress.step}" if progress.step else "",
            f"loss {progress.loss:.3f}" if progress.loss is not None else "",
            f"{count(progress.tokens_per_second)} tokens/s" if progress.tokens_per_second else "",
        )


class Preparation(Bars):
    """A bar for each stage of preparing a corpus."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        detail = f"{count(done)} of {count(total)}" if total else ""
        self.show(stage, stage, done / total if total else 0.0, detail)


class Follower:
    """Shows a campaign's events: a bar while a trial runs, notices as lines. Calls `on_experiment` for every verdict.

    A context manager; bars that are still drawn are erased at its end.
    """

    def __init__(self, console: Console, on_experiment: Callable[[events.Judged], None] = lambda judged: None) -> None:
        self._console = console
        self._on_experiment = on_experiment
        self._bar: TrialBar | None = None
        self._preparation: Preparation | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.Preparing():
                if self._preparation is None:
                    self._preparation = Preparation(self._console)
                self._preparation(event.stage, event.done, event.total)
            case events.Proposed():
                origin = "resumed" if event.resumed else f"from {event.agent}"
                self._line_after_bars(f"experiment {event.number} ({origin}): {one_line(event.hypothesis)}")
            case events.TrialStarted():
                self._start_bar(f"experiment {event.number}, seed {event.seed}: ")
            case events.Progress():
                if self._bar is not None:
                    self._bar(event)
            case events.TrialEnded():
                self.close()
            case events.Reviewing(role=""):
                self._line(f"experiment {event.number} looks better: its score is audited before it is kept")
            case events.Reviewing():
                if self._bar is not None:
                    self._bar.show("trial", f"{event.role}: audit of its scores", None)
            case events.Judged():
                self.close()
                self._on_experiment(event)
            case events.Repeat():
                earlier = event.earlier
                self._line(
                    f"not run again: {one_line(event.hypothesis)} is experiment {earlier.number}, {earlier.verdict} "
                    f"with val_bpb {text.bpb(earlier.val_bpb, earlier.deviation)}"
                )
            case events.Drifted():
                self._line_after_bars(_drifted(event))
            case events.Confirming():
                self._line_after_bars(_confirming(event))
            case events.Measuring():
                self._start_bar(f"{event.place + 1} of {event.count}: {event.whose}, seed {event.seed}: ")
            case events.Measured():
                self._line_after_bars(_measured(event))
            case events.Working():
                self._bar = self._bar or TrialBar(self._console)
                self._bar.show("agent", f"{event.agent}:", None, one_line(event.what))
            case events.Notice() | events.Outlook():
                self._line(event.text)
            case events.Stopped():
                self._line_after_bars(f"stopped: {event.reason}")

    def close(self) -> None:
        """Erases bars that are still drawn."""
        for bars in (self._bar, self._preparation):
            if bars is not None:
                with contextlib.suppress(OSError):  # the terminal may be closed already
                    bars.close()
        self._bar = self._preparation = None

    def _start_bar(self, name: str) -> None:
        self.close()
        self._bar = TrialBar(self._console, name)

    def _line_after_bars(self, text: str) -> None:
        """Prints a line after erasing the bars."""
        self.close()
        self._line(text)

    def _line(self, text: str) -> None:
        self._console.print(Text(text, style="bright_black"), soft_wrap=True)


def _drifted(event: events.Drifted) -> str:
    measured = f"baseline and champion are measured again, {event.trials} trials"
    if event.moved is None:
        return f"{measured}: resumed"
    before, now = count(event.moved.before), count(event.moved.now)
    return f"the device's speed changed by {event.moved.share:+.0%} ({before} -> {now} tokens/s): {measured}"


def _confirming(event: events.Confirming) -> str:
    seeds = ", ".join(map(str, event.seeds))
    what = f"experiment {event.champion} against the baseline, seeds {seeds}"
    if event.trials == 0:
        return f"{what}: all of these trials have run; more seeds add to them"
    return f"{what}: {event.trials} trials to run, about {text.seconds(event.seconds)}"


def _measured(event: events.Measured) -> str:
    one, trial = event.measurement, event.measurement.trial
    whose = f"{one.role}, seed {trial.seed}"
    if trial.verdict != "scored":
        return f"{whose}: {trial.verdict}, so it does not count: {one_line(trial.reason)}"
    test = f", test {text.bpb(trial.test_bpb)}" if trial.test_bpb is not None else ""
    return f"{whose}: val {text.bpb(trial.val_bpb)}{test} bpb in {text.seconds(trial.wall_seconds)}"
