"""The events of a running campaign: small frozen records that the command line shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from core.records import Experiment, Measurement


@dataclass(frozen=True)
class Preparing:
    """Data or bytecode is being prepared. Sent before the first experiment, only if something is missing."""

    stage: str
    done: int
    total: int


@dataclass(frozen=True)
class Accepted:
    """An edit has passed all checks that need no trial. It will be this experiment, or it repeats it."""

    number: int
    repeat: bool = False


@dataclass(frozen=True)
class Proposed:
    """A candidate is committed and pinned; its trials come next. Number 0 is the baseline."""

    number: int
    hypothesis: str
    agent: str
    resumed: bool = False  # it was pending when the campaign was opened


@dataclass(frozen=True)
class TrialStarted:
    """A trial of an experiment starts."""

    number: int  # of the experiment
    seed: int


PHASES = {"startup": "starting up", "train": "training", "score": "scoring"}


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where the trial that runs stands, a few times a second."""

    phase: Literal["startup", "train", "score"]
    fraction: float
    step: int
    loss: float | None
    tokens_per_second: float | None


@dataclass(frozen=True)
class TrialEnded:
    """It is in the ledger."""


@dataclass(frozen=True)
class Reviewing:
    """What would be kept, or what a confirmation rests on, is audited deeply first."""

    number: int
    role: str = ""  # of a trial that is no experiment's


@dataclass(frozen=True)
class Judged:
    """The experiment is in the ledger, and the branch has moved if it was kept."""

    experiment: Experiment


@dataclass(frozen=True)
class Repeat:
    """A proposal that was not run: its trainer equals one that has its verdict already."""

    hypothesis: str
    agent: str
    earlier: Experiment


@dataclass(frozen=True, kw_only=True)
class Moved:
    """Median speeds, in tokens/s, of the first five and the last five trials whose step costs the same."""

    before: float
    now: float

    @property
    def share(self) -> float:
        return self.now / self.before - 1


@dataclass(frozen=True)
class Drifted:
    """The device's speed moved, so baseline and champion are measured again."""

    moved: Moved | None  # None: a re-measurement that was cut off is resumed
    trials: int


@dataclass(frozen=True)
class Confirming:
    """Champion and baseline are about to run with fresh seeds. Recorded trials count as done."""

    champion: int
    seeds: tuple[int, ...]
    trials: int  # still to run
    seconds: float  # that they will take, by earlier trials


@dataclass(frozen=True)
class Measuring:
    """A trial starts that is no experiment's."""

    place: int  # among those planned, from 0
    count: int
    role: str
    experiment: int  # whose trainer it is, or is made from
    seed: int

    @property
    def whose(self) -> str:
        """`baseline (experiment 0)`, or of an ablation `experiment 7 without 5`."""
        if self.role.startswith("without"):
            return f"experiment {self.experiment} {self.role}"
        return f"{self.role} (experiment {self.experiment})"


@dataclass(frozen=True)
class Measured:
    """It is in the ledger."""

    measurement: Measurement


@dataclass(frozen=True)
class Working:
    """What the agent does before it proposes."""

    agent: str
    what: str


@dataclass(frozen=True)
class Notice:
    """Something a person should know and need not act upon."""

    text: str


@dataclass(frozen=True)
class Away(Notice):
    """The agent can't propose for a while, such as for a key that is not accepted: the search stands in."""

    reason: str


@dataclass(frozen=True)
class Back(Notice):
    """The agent that was away proposes again."""


@dataclass(frozen=True)
class Outlook:
    """What a run can show, and how program.md's limits meet its champion. Sent before its first experiment."""

    text: str


@dataclass(frozen=True)
class Stopped:
    """The last event of a run, with what ended it."""

    reason: str


Event = (
    Preparing
    | Accepted
    | Proposed
    | TrialStarted
    | Progress
    | TrialEnded
    | Reviewing
    | Judged
    | Repeat
    | Drifted
    | Confirming
    | Measuring
    | Measured
    | Working
    | Notice
    | Outlook
    | Stopped
)
OnEvent = Callable[[Event], None]
OnProgress = Callable[[Progress], None]
