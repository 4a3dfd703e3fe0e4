"""The interface of agents: `Agent`, and what it gets, `History` and `AgentContext`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from core.events import OnEvent, Repeat
from core.records import Constant, Experiment, Preset, Proposal
from core.store.program import Program


class History(Protocol):
    """A campaign as an agent sees it. Each call reads what it needs: a long campaign costs no more than a short one.

    `recent`, `best` and `repeat_of` give experiments without their trials; `experiment` gives one with them.
    """

    @property
    def program(self) -> Program: ...
    @property
    def preset(self) -> Preset: ...
    @property
    def champion(self) -> Experiment:
        """The best one verified, with the newest belief about its score."""
        ...

    @property
    def champion_text(self) -> str: ...

    def __len__(self) -> int:
        """How many experiments are recorded, the baseline included; the number of the one to propose."""
        ...

    def verdicts(self) -> Mapping[str, int]:
        """How many experiments got which verdict, the baseline's `keep` included."""
        ...

    def recent(self, count: int) -> list[Experiment]:
        """The last `count` experiments, oldest first."""
        ...

    def best(self, count: int) -> list[Experiment]:
        """The `count` lowest scores by what is believed now, best first."""
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

    def repeat_of(self, text: str) -> Experiment | None:
        """The experiment, kept or discarded, that had this trainer: it would not be run again."""
        ...


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """The result of a trainer's first step in the sandbox: whether it runs, not how well it learns."""

    fault: str  # why it can't be tried; empty where it runs
    seconds: float
    output: str = ""  # the end of what it printed: data, whatever it says
    parameters: int | None = None
    peak_memory_mb: float | None = None
    flops_per_token: float | None = None
    lines: float = 0.0  # of code, that it has more than the champion; below 0 for fewer
    beyond: str = ""  # the limits of program.md that this step breaks already

    @property
    def cost(self) -> str:
        """What the step took, in a line."""
        parts = [f"{self.seconds:.1f} s for all of it, one step of training among it"]
        if self.parameters is not None:
            parts.append(f"{self.parameters} parameters")
        if self.peak_memory_mb is not None:
            parts.append(f"{self.peak_memory_mb:.0f} MB at its peak")
        if self.flops_per_token:
            parts.append(f"{self.flops_per_token:.3g} FLOP a token as it says")
        if count := round(abs(self.lines)):
            more = "more" if self.lines > 0 else "fewer"
            parts.append(f"about {count} line{'s' if count > 1 else ''} of code {more} than the champion")
        return ", ".join(parts) + (f"; it would be discarded, as it {self.beyond}" if self.beyond else "")


class AgentContext(Protocol):
    """What an agent may use during a run."""

    @property
    def root(self) -> Path:
        """The campaign's folder."""
        ...

    @property
    def state(self) -> Path:
        """An existing folder in the campaign for agents' own files. No trial can read it."""
        ...

    @property
    def tell(self) -> OnEvent: ...

    def check(self, text: str) -> CheckResult:
        """Whether a trainer may be tried (`trainer.check.refusal`), and if so, one step of it in the sandbox."""
        ...

    def seconds_left(self) -> float:
        """Seconds until the run starts no new experiment; infinite without a limit."""
        ...


class Unavailable(Exception):
    """Raised by `propose` of an agent that can't propose now, such as a model whose server is down.

    `seconds`: when it is worth trying again.
    """

    def __init__(self, reason: str, seconds: float) -> None:
        super().__init__(reason)
        self.seconds = seconds


class Agent:
    """Proposes experiments. State must be rebuilt from the history: a campaign may continue in another process."""

    name: str
    why_none: str = ""  # why `propose` returned None, for the run's last line; empty for nothing to add
    context: AgentContext  # since `begin`

    def begin(self, context: AgentContext) -> None:
        """A run starts. Called once, before the baseline where that is missing; a UserError ends the run here.

        Until the first `propose` there may be no champion, which `context.check` compares a trainer with.
        """
        self.context = context

    def propose(self, history: History) -> Proposal | None:
        """The next change to the champion, or None for nothing more, which ends the run. May raise Unavailable."""
        raise NotImplementedError

    def observe(self, experiment: Experiment) -> None:
        """Called with every experiment that got its verdict in this run."""

    def repeated(self, repeat: Repeat) -> None:
        """Called where its proposal was not run, as its trainer has a verdict already."""

    def end(self) -> None:
        """The run is over, in whatever way. Called once if `begin` was, also where that failed."""
