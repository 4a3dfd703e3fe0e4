"""What an agent is, and what it is shown. Which agents there are stands in the registry beside this file."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from core.events import Repeat
from core.program import Program
from core.records import Constant, Experiment, Preset, Proposal


class History(Protocol):
    """A campaign as an agent sees it when it is asked. Reads on demand: thousands of experiments cost nothing unasked.

    `recent`, `best` and `repeat_of` give experiments without their trials; `experiment` gives one with them.
    """

    @property
    def program(self) -> Program: ...
    @property
    def preset(self) -> Preset: ...
    @property
    def champion(self) -> Experiment: ...
    @property
    def champion_text(self) -> str: ...

    def __len__(self) -> int:
        """How many experiments are recorded, the baseline included; the number of the one to propose."""
        ...

    def recent(self, count: int) -> list[Experiment]:
        """The last `count` experiments, oldest first."""
        ...

    def best(self, count: int) -> list[Experiment]:
        """The `count` lowest scores, best first."""
        ...

    def experiment(self, number: int) -> Experiment: ...

    def text(self, number: int) -> str:
        """The trainer that the experiment tried."""
        ...

    def diff(self, number: int) -> str:
        """What the experiment changed in the champion of its time, as a unified diff."""
        ...

    def folder(self, number: int) -> Path:
        """One subfolder a trial, with output.txt and curve.jsonl."""
        ...

    def constants(self, number: int) -> dict[str, Constant]:
        """The trainer's module-level constants in that experiment; empty if it could not be parsed."""
        ...

    def tried(self, text: str) -> bool:
        """Whether an experiment of any verdict had this trainer, layout and comments aside."""
        ...


class Agent(Protocol):
    """Whoever proposes. One that keeps state rebuilds it from the history: a campaign may go on in another process."""

    @property
    def name(self) -> str: ...

    def propose(self, history: History) -> Proposal | None:
        """The next change to the champion, or None for nothing more, which ends the run."""
        ...

    def observe(self, experiment: Experiment) -> None:
        """Told of every experiment that got its verdict in this run."""
        ...

    def repeated(self, repeat: Repeat) -> None:
        """Told that its proposal was not run, with the earlier result."""
        ...
