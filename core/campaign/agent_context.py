"""What a campaign lends to its agent for one run: a folder, the time that is left, and a trainer's first step."""

from __future__ import annotations

import time
from dataclasses import replace

from core.agents.base import CheckResult
from core.campaign.judge.limits import are_held, breach
from core.campaign.session import Session
from core.records import Budget
from core.store import trial_files
from core.store.program import Limits
from core.system import scratch
from core.trainer.check import refusal
from core.trainer.fingerprint import NODES_PER_LINE, nodes
from core.trial.spec import TrialSpec

SCORED_BYTES = 65_536  # enough to see that `restore` works; the score itself is not used
SHOWN_CHARACTERS = 8_000


class CampaignContext:
    """`agents.base.AgentContext` of an open campaign whose lock its caller holds."""

    def __init__(self, session: Session, until: float) -> None:
        """`until`: the moment of `time.monotonic()` at which the run starts nothing new."""
        self._engine = session.engine
        self._campaign, self._policy = session.campaign, session.policy
        self._until = until
        self.root = self._campaign.root
        self.state = self._campaign.files.agents
        self.state.mkdir(exist_ok=True)
        self.tell = session.tell

    def seconds_left(self) -> float:
        return self._until - time.monotonic()

    def check(self, text: str) -> CheckResult:
        """Parses a trainer, compares program.md's fixed constants and runs one step in the sandbox."""
        begun = time.monotonic()
        if (refused := refusal(text, self._campaign.champion_text, self._campaign.program.fixed)) is not None:
            return CheckResult(fault=refused.reason, seconds=time.monotonic() - begun)
        preset, champion = self._campaign.preset, self._campaign.champion_text
        with scratch.folder() as temporary:
            into = temporary / "trial"
            record = self._engine.run_trial(
                TrialSpec(
                    trainer=text,
                    preset=replace(preset, score_bytes=min(SCORED_BYTES, preset.score_bytes)),
                    budget=Budget(steps=1),
                    seed=preset.seeds[0],
                    into=into,
                )
            )
            output = trial_files.printed(into)
        return CheckResult(
            fault="" if record.verdict == "scored" else record.reason or record.verdict,
            output=output[-SHOWN_CHARACTERS:],
            seconds=time.monotonic() - begun,
            parameters=record.parameters,
            peak_memory_mb=record.peak_memory_mb,
            flops_per_token=record.flops_per_token,
            lines=((nodes(text) or 0) - (nodes(champion) or 0)) / NODES_PER_LINE,
            beyond=breach([record], self._limits()),
        )

    def _limits(self) -> Limits:
        """Those of program.md that a single step can break."""
        limits = self._campaign.program.limits if are_held(self._policy) else Limits()
        return Limits(memory_mb=limits.memory_mb, parameters=limits.parameters)
