"""A history in memory, for agents alone: no git, no ledger, no trial."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from core.agents.base import Agent
from core.records import Constant, Experiment, Preset, Proposal, Trial
from core.store.program import Program
from core.trainer.constants import read_constants
from core.trainer.fingerprint import fingerprint

Measure = Callable[[Mapping[str, Constant]], float | None]


class MemoryHistory:
    """`agents.base.History` whose trials are a function of the trainer's constants; None is a crash."""

    def __init__(
        self,
        text: str,
        measure: Measure,
        preset: Preset,
        program: Program | None = None,
        trials: tuple[Trial, ...] = (),  # the baseline's
    ) -> None:
        self.program = program or Program()
        self.preset = preset
        self.texts: list[str] = []
        self.found: list[Experiment] = []
        self._measure = measure
        self._constants: list[dict[str, Constant]] = []
        self._fingerprints: set[str] = set()
        self.record(Proposal(text=text, hypothesis="baseline", agent="preset"))
        self.found[0] = replace(self.found[0], trials=trials)

    def record(self, proposal: Proposal) -> Experiment:
        constants = read_constants(proposal.text)
        score = self._measure(constants)
        best = self.champion if self.found else None
        kept = score is not None and (best is None or score < (best.val_bpb or 0))
        own = fingerprint(proposal.text)
        number = len(self.found)
        self.found.append(
            Experiment(
                number=number,
                commit=str(number),
                parent=str(best.number if best else 0),
                agent=proposal.agent,
                hypothesis=proposal.hypothesis,
                verdict="crash" if score is None else "keep" if kept else "discard",
                reason="",
                val_bpb=score,
                champion_bpb=best.val_bpb if best else None,
                spread=None,
                fingerprint=own,
                wall_seconds=1.0,
                train_seconds=1.0,
                ended="",
                trials=(),
            )
        )
        self.texts.append(proposal.text)
        self._constants.append(constants)
        self._fingerprints.add(own)
        return self.found[-1]

    def run(self, agent: Agent, count: int) -> None:
        for _ in range(count):
            proposal = agent.propose(self)
            if proposal is None:
                return
            agent.observe(self.record(proposal))

    @property
    def champion(self) -> Experiment:
        return next(e for e in reversed(self.found) if e.verdict == "keep")

    @property
    def champion_text(self) -> str:
        return self.texts[self.champion.number]

    def __len__(self) -> int:
        return len(self.found)

    def verdicts(self) -> Mapping[str, int]:
        return Counter(one.verdict for one in self.found)

    def recent(self, count: int) -> list[Experiment]:
        return self.found[max(0, len(self.found) - count) :]

    def best(self, count: int) -> list[Experiment]:
        scored = [e for e in self.found if e.val_bpb is not None]
        return sorted(scored, key=lambda e: (e.val_bpb or 0, e.number))[:count]

    def experiment(self, number: int) -> Experiment:
        return self.found[number]

    def text(self, number: int) -> str:
        return self.texts[number]

    def diff(self, number: int) -> str:
        return ""

    def folder(self, number: int) -> Path:
        return Path(str(number))

    def constants(self, number: int) -> dict[str, Constant]:
        return self._constants[number]

    def tried(self, text: str) -> bool:
        return fingerprint(text) in self._fingerprints

    def repeat_of(self, text: str) -> Experiment | None:
        own = fingerprint(text)
        return next((e for e in self.found if e.fingerprint == own and e.verdict in ("keep", "discard")), None)
