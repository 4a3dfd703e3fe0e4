"""Campaigns without training: real git, ledger and files; an engine reads a trial's outcome off the trainer."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import shutil
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.agents.base import Agent, History
from core.campaign.campaign import Campaign
from core.campaign.judge.base import AnotherTrial, Decision, Effect, Evidence, Policy, failure
from core.campaign.judge.belief import Belief
from core.campaign.judge.greedy import LowerWins
from core.events import OnEvent, OnProgress, Repeat
from core.records import (
    FACTS,
    WEIGHTS,
    Audit,
    Budget,
    Experiment,
    Facts,
    Preset,
    Proposal,
    Score,
    Trial,
    to_json,
)
from core.trainer.constants import read_constants
from core.trial.audit import AuditResult
from core.trial.engine import Local
from core.trial.spec import AuditSpec, TrialSpec, read_facts

YARDSTICK = hashlib.sha256(b"yardstick").hexdigest()
WEIGHTS_BYTES = b"weights"
TEST_YARDSTICK = hashlib.sha256(b"test yardstick").hexdigest()
TEST_HARDER = 0.05  # bits per byte more than the validation text takes
SEED_NOISE = 0.01  # how much worse the baseline's second seed is

PRESET = Preset(
    name="test",
    backend="numpy",
    device="cpu",
    corpus="apidocs",
    vocabulary=256,
    depth=1,
    sequence_length=32,
    total_batch_size=512,
    device_batch_size=16,
    budget_seconds=0.3,
    startup_seconds=60,
    silence_seconds=30,
    score_bytes=1000,
    seeds=(1, 2),
)


def trainer(score: float, outcome: str = "scored", note: str = "") -> str:
    """A trainer for `ScriptedEngine`: what a trial of it comes to stands in its constants."""
    return f'# {note}\nSCORE = {score!r}  # tune: linear 0 .. 9\nOUTCOME = "{outcome}"\n\n\ndef main():\n    pass\n'


@dataclass
class ScriptedEngine:
    """Trials that end at once, as their trainer's constants say; leaves the files that a real one leaves."""

    yardstick: str = YARDSTICK
    ran: list[tuple[float, int]] = field(default_factory=list)  # (SCORE, seed)
    reviewed: list[tuple[str, str, float | None]] = field(default_factory=list)  # (experiment, trial, noise)
    drifted: float = 0.0  # that weights score worse when they are scored again
    during: Callable[[TrialSpec], None] = lambda spec: None  # called while a trial runs
    record: Callable[[Path, Trial], Trial] = lambda into, trial: trial  # what becomes of a trial's record

    def prepare(self, preset: Preset, tell: OnEvent) -> None:
        pass

    def run_trial(self, spec: TrialSpec, on_progress: OnProgress = lambda progress: None) -> Trial:
        constants = read_constants(spec.trainer)
        score, outcome = float(str(constants["SCORE"])), str(constants["OUTCOME"])
        into, seed = spec.into, spec.seed
        shutil.rmtree(into, ignore_errors=True)
        into.mkdir(parents=True)
        (into / "output.txt").write_text(f"first line\nended as {outcome}\n", encoding="utf-8")
        (into / "curve.jsonl").write_text('{"step": 1, "seconds": 0.1, "progress": 1.0, "loss": 5.0}\n')
        spec.keep_trainer()
        self.during(spec)
        self.ran.append((score, seed))
        scored = outcome in {"scored", "nan", "cheat"}
        if scored:
            (into / WEIGHTS).write_bytes(WEIGHTS_BYTES)
            facts = Facts(
                vocabulary=256, bos=255, seed=seed, backend="numpy", device="cpu", sequence_length=32
            )  # fmt: skip
            (into / FACTS).write_text(json.dumps(to_json(facts)), encoding="utf-8")
        bpb = math.nan if outcome == "nan" else score + SEED_NOISE * (seed != spec.preset.seeds[0])
        trial = a_trial(
            verdict="scored" if scored else outcome,
            reason="" if scored else f"ended as {outcome}",
            val_bpb=bpb if scored else None,
            seed=seed,
            yardstick=self.yardstick,
            test_bpb=bpb + TEST_HARDER if scored and spec.test else None,
            test_yardstick=TEST_YARDSTICK if spec.test else "",
        )
        return self.record(into, trial)

    def score(self, spec: AuditSpec) -> Score:
        constants, seed = read_constants(spec.trainer), read_facts(spec.folder).seed
        bpb = float(str(constants["SCORE"])) + SEED_NOISE * (seed != spec.preset.seeds[0]) + self.drifted
        return Score(val_bpb=bpb, bytes=1000, tokens=1000, yardstick=self.yardstick)

    def review(self, spec: AuditSpec) -> AuditResult:
        """Holds but where the trainer is a cheat."""
        assert spec.weights.exists()
        self.reviewed.append((spec.folder.parent.name, spec.folder.name, spec.noise_bpb))
        outcome = read_constants(spec.trainer)["OUTCOME"]
        fault = "its logits depend on tokens that come later" if outcome == "cheat" else ""
        return AuditResult(an_audit(), fault, an_audit() if spec.test else None)


class Steps(Local):
    """Real trials on this machine, of five steps each: what comes of them repeats to the last bit."""

    def run_trial(self, spec: TrialSpec, on_progress: OnProgress = lambda progress: None) -> Trial:
        return super().run_trial(dataclasses.replace(spec, budget=Budget(steps=5)), on_progress)


def a_trial(**values: Any) -> Trial:
    """A trial's record with these fields, the others plausible."""
    base: dict[str, Any] = {
        "verdict": "scored", "reason": "", "val_bpb": 1.5, "steps": 10, "tokens": 5120, "parameters": 1000,
        "startup_seconds": 0.1, "train_seconds": 0.25, "score_seconds": 0.1, "wall_seconds": 0.5,
        "tokens_per_second": 20480.0, "flops_per_token": 6000.0, "mfu": 0.1, "peak_flops": 1e9, "peak_memory_mb": 50.0,
        "weights_sha256": hashlib.sha256(WEIGHTS_BYTES).hexdigest(),
        "seed": 1, "preset": "test", "backend": "numpy", "device": "cpu",
        "choices": {"kernel": "none (counts)"}, "versions": {"numpy": "2"}, "yardstick": YARDSTICK, "vocabulary": 256,
        "sequence_length": 32, "rows": 16, "budget_seconds": 0.3, "budget_steps": None, "final_loss": 4.0,
        "scored_bytes": 1000, "sandbox": "none", "started": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    return Trial(**{**base, **values})


def an_audit(**values: Any) -> Audit:
    """A deep audit's record with these fields, the others plausible."""
    base: dict[str, Any] = {
        "kind": "deep", "positions": 250, "dtype": "float32", "tolerance": 0.02, "largest": 1e-5, "mean": 1e-7,
        "standard_error": 1e-7, "hidden_bpb": 0.001, "permuted_bpb": 8.0, "seconds": 0.5,
    }  # fmt: skip
    return Audit(**{**base, **values})


class Pairs(LowerWins):
    """A policy for tests: candidate and champion on two seeds, the baseline too at first; the lower mean wins.

    The second seed is new with each champion, so that every one is tried again.
    """

    name, version = "pairs", 1

    def decide(self, evidence: Evidence) -> AnotherTrial | Decision:
        champion = evidence.champion
        if champion is None or any(failure(trial) for trial in evidence.trials):
            return LowerWins().decide(evidence)
        of = (evidence.trials, evidence.lineage[-1].trials)  # also of a busy machine: tests run on some
        own, known = ({trial.seed: trial.val_bpb or 0.0 for trial in trials} for trials in of)
        seeds = evidence.seeds[0], 10 + champion.number
        for seed in seeds:
            if seed not in own:
                return AnotherTrial(seed)
            if seed not in known:
                return AnotherTrial(seed, "champion")
        if champion.number > 0 and len(evidence.baseline_again) < 2:
            return AnotherTrial(seeds[0], "baseline")
        gains = [known[seed] - own[seed] for seed in seeds]
        gain, mean = statistics.fmean(gains), statistics.fmean(own.values())
        return Decision(
            verdict="keep" if gain > 0 else "discard", reason=f"gain {gain:.4f} of two seeds", val_bpb=mean,
            champion_bpb=mean + gain, spread=None, effect=Effect(gain=gain, error=max(gains) - min(gains)),
        )  # fmt: skip


POLICIES: dict[str, Policy] = {policy.name: policy for policy in (LowerWins(), Pairs(), Belief())}


class ScriptedAgent(Agent):
    """Proposes the trainers of a list by the number of the experiment, so that it can be asked again after a kill."""

    name = "scripted"

    def __init__(self, texts: Sequence[str | None]) -> None:
        self._texts = texts
        self._skipped = 0  # repeats, which get no number
        self.observed: list[Experiment] = []
        self.repeats: list[Repeat] = []

    def propose(self, history: History) -> Proposal | None:
        place = len(history) - 1 + self._skipped
        if place >= len(self._texts) or (text := self._texts[place]) is None:
            return None
        return Proposal(text=text, hypothesis=f"idea {place}", agent=self.name)

    def observe(self, experiment: Experiment) -> None:
        self.observed.append(experiment)

    def repeated(self, repeat: Repeat) -> None:
        self._skipped += 1
        self.repeats.append(repeat)


def a_campaign(root: Path, score: float = 2.0, **values: Any) -> Campaign:
    """A new campaign with a scripted engine, its baseline not yet run. It keeps any lower score."""
    values = {
        "engine": ScriptedEngine(),
        "program": "Lower it.\n",
        "trainer": trainer(score),
        "tag": "t",
        "policy": LowerWins(),
        **values,
    }
    return Campaign.create(root, PRESET, **values)


def facts_of(campaign: Campaign) -> list[tuple[Any, ...]]:
    """What must not depend on when a process was killed: everything about the experiments but commits and times."""
    return [
        (
            e.number,
            e.hypothesis,
            e.agent,
            e.verdict,
            e.reason,
            e.val_bpb,
            e.champion_bpb,
            e.spread,
            e.fingerprint,
            [(t.seed, t.verdict, t.val_bpb) for t in e.trials],
            campaign.trainer_text(e.commit),
            campaign.trainer_text(e.parent),
        )
        for e in campaign.experiments()
    ]


def events_of(kind: type[Any], events: Iterable[Any]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]
