"""What a campaign lends to its agent for one run: a folder, the time that is left, and a trainer's first step."""

from __future__ import annotations

import time
from dataclasses import replace

from core.agents.base import CheckResult
from core.campaign.session import Session
from core.records import Budget
from core.store import trial_files
from core.system import scratch
from core.trainer.check import refusal
from core.trial.spec import TrialSpec

SCORED_BYTES = 65_536  # enough to see that `restore` works; the score itself is not used
SHOWN_CHARACTERS = 8_000


class CampaignContext:
    """`agents.base.AgentContext` of an open campaign whose lock its caller holds."""

    def __init__(self, session: Session, until: float) -> None:
        """`until`: the moment of `time.monotonic()` at which the run starts nothing new."""
        self._engine = session.engine
        self._campaign = session.campaign
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
        preset = self._campaign.preset
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
        )
