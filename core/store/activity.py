"""What the process that writes to a campaign is doing, or how the last one ended.

It lies in a small file, so that `wait`, `status` and a second writer can tell. Nothing is decided by it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from core import events
from core.events import OnEvent
from core.records import UserError
from core.store.layout import CampaignFolder
from core.store.lock import is_held, only_writer
from core.system.files import read_json

_TRIES = 5
WRITE_SECONDS = 1.0  # between two notes of a trial's progress
INTERRUPTED = "interrupted"
KILLED = "it ended without a word: it was killed, or the machine went down"

Command = Literal["run", "try", "confirm", "ablate", "transfer"]


@dataclass(frozen=True, kw_only=True)
class Activity:
    """One call that writes to a campaign, from its start to its end."""

    command: Command
    pid: int
    began: str  # UTC, ISO 8601
    job: str = ""  # of `try --detach`: by which the command that started it knows it
    target: int | None = None  # the experiment that a `try` becomes, or that it repeats
    repeat: bool = False  # whether it repeats one
    experiment: int | None = None  # the one at work
    hypothesis: str = ""
    judged: int | None = None  # the last one that got its verdict
    subject: str = ""  # what the present trial is of
    doing: str = ""
    seconds: float | None = None  # of the budget that the present trial has trained for
    budget: float | None = None
    away: str = ""  # which agent can't propose, and why
    away_since: str = ""  # UTC, ISO 8601
    ended: str = ""  # UTC, ISO 8601; empty while it runs
    failed: bool = False
    reason: str = ""  # what ended it
    told: bool = True  # False: it failed where nobody could read it
    running: bool = False  # found out when it is read

    @property
    def line(self) -> str:
        """What it does at the moment: `212 of 300 s (experiment 3, seed 1)`."""
        if self.seconds is not None and self.budget is not None:
            doing = f"{self.seconds:.0f} of {self.budget:g} s"
        else:
            doing = self.doing or "starting"
        subject = self.subject
        if self.target is not None and self.target != self.experiment:
            subject += f"{'; ' if subject else ''}then experiment {self.target}"
        return f"{doing} ({subject})" if subject else doing


def read(folder: CampaignFolder) -> Activity | None:
    """What is at work, or was the last time; None if nothing ever was, or if it can't be read."""
    known = {one.name for one in dataclasses.fields(Activity)}
    try:
        found = Activity(**{key: value for key, value in (read_json(folder.activity) or {}).items() if key in known})
    except TypeError:
        return None
    if found.ended:
        return found
    if is_held(folder.state):
        return dataclasses.replace(found, running=True)
    # It may have ended between the two looks.
    again = read_json(folder.activity)
    if again is not None and again.get("ended"):
        return read(folder)
    return dataclasses.replace(found, failed=True, reason=KILLED, told=not found.job)


def mark_told(folder: CampaignFolder, activity: Activity) -> None:
    """Remembers that a person has seen how it failed."""
    _write(folder.activity, dataclasses.replace(activity, ended=activity.ended or _now(), told=True))


@contextmanager
def writing(
    folder: CampaignFolder, command: Command, budget: float, on_event: OnEvent, job: str = ""
) -> Iterator[OnEvent]:
    """Holds the campaign's lock. The events that are told within are noted and passed on, and so is what ended it.

    `budget`: seconds that a trial trains. Raises Busy where another process writes to the campaign.
    """
    with only_writer(folder.state, lambda: holder(folder)):
        recorder = _Recorder(folder.activity, Activity(command=command, pid=os.getpid(), began=_now(), job=job), budget)
        failed, reason = False, ""

        def tell(event: events.Event) -> None:
            recorder.note(event)
            on_event(event)

        try:
            yield tell
        except BaseException as error:
            failed, reason = True, _reason(error)
            raise
        finally:
            recorder.end(failed, reason)


def holder(folder: CampaignFolder) -> str:
    """Who holds the lock, and what to do about it."""
    found = read(folder)
    if found is None or not found.running:
        return "its process is not known; wait for it, or end it"
    doing = f"process {found.pid}, since {found.began}: autoresearch {found.command}, {found.line}"
    return f"{doing}; wait for it with `autoresearch wait`, or end it"


def _reason(error: BaseException) -> str:
    if isinstance(error, UserError):
        return str(error)
    return INTERRUPTED if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"


@dataclass
class _Recorder:
    path: Path
    now: Activity
    budget: float
    written: float = field(default=0.0)

    def __post_init__(self) -> None:
        self._write()

    def note(self, event: events.Event) -> None:
        """Takes over what the event says, and writes it unless it is only a little more progress."""
        before = self.now
        changes = _changes(before, event, self.budget)
        if not changes:
            return
        self.now = dataclasses.replace(before, **changes)
        progress = isinstance(event, events.Progress | events.Working | events.Preparing)
        if progress and self.now.doing == before.doing and time.monotonic() - self.written < WRITE_SECONDS:
            return
        self._write()

    def end(self, failed: bool, reason: str) -> None:
        # What a detached process has not begun yet, only its starter's terminal has heard of.
        told = not (failed and self.now.job and self.now.target is not None)
        self.now = dataclasses.replace(
            self.now, ended=_now(), failed=failed, reason=reason or self.now.reason, told=told
        )
        self._write()

    def _write(self) -> None:
        self.written = time.monotonic()
        _write(self.path, self.now)


def _changes(now: Activity, event: events.Event, budget: float) -> dict[str, Any]:
    """The fields of an activity that the event changes."""
    match event:
        case events.Accepted():
            return {"target": event.number, "repeat": event.repeat}
        case events.Preparing():
            return {"doing": event.stage}
        case events.Proposed():
            subject = f"experiment {event.number}" if event.number else "the baseline"
            return {
                "experiment": event.number, "hypothesis": event.hypothesis, "subject": subject,
                "doing": "starting", "seconds": None,
            }  # fmt: skip
        case events.TrialStarted():
            subject = f"experiment {event.number}" if event.number else "the baseline"
            return {"subject": f"{subject}, seed {event.seed}", "doing": "starting up", "seconds": None}
        case events.Measuring():
            subject = f"{event.whose}, {event.place + 1} of {event.count}, seed {event.seed}"
            return {"subject": subject, "doing": "starting up", "seconds": None}
        case events.Progress():
            training = event.phase == "train"
            seconds = round(event.fraction * budget, 1) if training else None
            return {"doing": events.PHASES[event.phase], "seconds": seconds, "budget": budget}
        case events.Reviewing():
            return {"doing": "the audit of its score", "seconds": None}
        case events.Judged():
            number = event.experiment.number
            return {"judged": number, "experiment": None, "subject": "", "doing": "", "seconds": None}
        case events.Working():
            return {"doing": f"{event.agent}: {event.what}", "subject": "", "seconds": None}
        case events.Away():
            return {"away": event.reason, "away_since": now.away_since or _now()}
        case events.Back():
            return {"away": "", "away_since": ""}
        case events.Stopped():
            return {"reason": event.reason}
        case _:
            return {}


def _write(path: Path, activity: Activity) -> None:
    """Replaces the file. A full disk is reported by what needs it more."""
    values = dataclasses.asdict(activity)
    del values["running"]
    partial = path.with_name(f"{path.name}.partial")  # always the same name: a kill leaves nothing that piles up
    with contextlib.suppress(OSError):
        partial.write_text(json.dumps(values, indent=1), encoding="utf-8")
        for _ in range(_TRIES):
            try:
                partial.replace(path)
                return
            except PermissionError:  # Windows, while another process reads it
                time.sleep(0.02)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
