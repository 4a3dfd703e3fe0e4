"""Runs one trial: a process that trains, a fresh one that scores its weights, and the record of both.

Clock, data and score stay on this side. Whatever the trainer does ends in a record, never in an exception here.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import math
import platform
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

import backends
from core.data import Dataset
from core.data.corpora.registry import outside_cache
from core.data.scored import ScoredText
from core.events import OnProgress, Progress
from core.records import (
    CURVE,
    FACTS,
    LOSSES,
    OUTPUT,
    TEST_LOSSES,
    WEIGHTS,
    Audit,
    Choice,
    Facts,
    Preset,
    Score,
    Trial,
    TrialVerdict,
    UserError,
    to_json,
)
from core.sandbox import tier
from core.system.conditions import Sampler
from core.system.files import disk_full_as_user_error
from core.system.text import one_line
from core.trial import audit, compile_cache, failures
from core.trial import weights as weight_file
from core.trial.environment import TrialEnvironment
from core.trial.mfu import peak_flops
from core.trial.process import Process, TrialFailed, unexpected_as_crash
from core.trial.scoring import Scorer, claimed_losses, score_of
from core.trial.shared_arrays import NoSpace
from core.trial.spec import TrialSpec
from core.trial.training import Training, check_budget
from core.trial.training_state import TrainingState


@dataclass
class _Outcome:
    """What is known of an attempt so far, so that a failure at any point still has a full record."""

    begun: float  # monotonic seconds
    retry: failures.Retry | None = None  # set where the attempt before this one ran out of memory
    training: TrainingState = field(default_factory=TrainingState)
    device: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    device_name: str = ""
    threads: int | None = None
    thread_settings: dict[str, str] = field(default_factory=dict)
    process_peak_mb: float | None = None
    weights: weight_file.Weights | None = None
    score: Score | None = None
    test: Score | None = None
    conditions: dict[str, float] = field(default_factory=dict)
    score_seconds: float = 0.0
    audit: Audit | None = None
    verdict: TrialVerdict = "scored"
    reason: str = ""


def run_trial(spec: TrialSpec, dataset: Dataset, on_progress: OnProgress = lambda progress: None) -> Trial:
    """Trains and scores `spec.trainer` once. `dataset` is the preset's corpus.

    UserError when the preset or its backend can't be had here, the disk is full, or somebody deleted what the trial
    works in. KeyboardInterrupt passes through.
    In every case all processes have ended and their scratch is gone on return.
    """
    spec = replace(spec, into=spec.into.absolute())  # its processes have current folders of their own
    begun, started = time.monotonic(), datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    check_budget(spec.budget)
    preset, into = spec.preset, spec.into
    environment = backend_environment(preset, hidden=(*outside_cache(dataset.corpus), into))
    outcome = _Outcome(begun)
    pending = compile_cache.PendingEntries(compile_cache.store(preset.backend), into / "compiled")
    with disk_full_as_user_error(into), contextlib.closing(pending):
        shutil.rmtree(into, ignore_errors=True)
        into.mkdir(parents=True)
        spec.keep_trainer()
        try:
            try:
                _Attempt(spec, dataset, environment.beside_others(), pending, outcome, on_progress).run()
            except TrialFailed as failure:
                retry = failures.retry(failure, outcome.training, backends.get(preset.backend), into)
                if retry is None:
                    raise
                outcome = _Outcome(time.monotonic(), retry)
                _Attempt(spec, dataset, environment.beside_others(), pending, outcome, on_progress).run()
        except (TrialFailed, NoSpace) as error:
            failed = failures.classify_disk_full(error)
            outcome.verdict, outcome.reason = failed.verdict, str(failed)
        finally:
            lines = (json.dumps(point) + "\n" for point in outcome.training.curve)
            (into / CURVE).write_text("".join(lines), encoding="utf-8")
        if outcome.verdict == "scored":
            pending.merge()
        else:
            for name in (WEIGHTS, LOSSES, TEST_LOSSES):
                (into / name).unlink(missing_ok=True)
    return _record(spec, dataset, outcome, begun, started)


def backend_environment(preset: Preset, *, hidden: tuple[Path, ...] = ()) -> TrialEnvironment:
    """The environment of the preset's processes; UserError if its backend can't run here."""
    if reason := backends.get(preset.backend).missing():
        raise UserError(f"backend {preset.backend!r} can't run here: {reason}")
    return TrialEnvironment(backend=preset.backend, device=preset.device, hidden=hidden)


@dataclass
class _Attempt:
    """One attempt at a trial: train, score, audit. What becomes known stands in `outcome`, whatever happens."""

    spec: TrialSpec
    dataset: Dataset
    environment: TrialEnvironment
    pending: compile_cache.PendingEntries
    outcome: _Outcome
    on_progress: OnProgress

    def run(self) -> None:
        """TrialFailed or NoSpace where it fails, UserError where the user has to mend something."""
        preset, into, environment = self.spec.preset, self.spec.into, self.environment
        texts = {LOSSES: self.dataset.scored("val", preset.score_bytes)}
        if self.spec.test:
            texts[TEST_LOSSES] = self.dataset.scored("test", preset.score_bytes)
        deadline = time.monotonic() + preset.startup_seconds
        self.on_progress(Progress(phase="startup", fraction=0.0, step=0, loss=None, tokens_per_second=None))
        with contextlib.ExitStack() as stack:
            trainer = Process("train", self.spec.trainer, environment, into / "usage.json")
            stack.callback(_keep_output, trainer, into / OUTPUT)
            stack.enter_context(trainer)
            # These two see held-out text, so their output is saved nowhere.
            scorer, auditor = (
                stack.enter_context(Scorer(self.spec.trainer, preset, environment, into / usage))
                for usage in ("usage-score.json", "usage-audit.json")
            )
            facts = self._train(trainer, (scorer, auditor), deadline)
            claims = self._score(scorer, facts, texts)
            self._audit(auditor, scorer, facts, claims[LOSSES])
            # Not before: an auditor that could read the claims would only have to agree with them.
            for name, text in texts.items():
                flat = claims[name].losses_BT.ravel()[: len(text.stream) - 1]
                np.save(into / name, flat, allow_pickle=False)

    def _train(self, trainer: Process, parked: tuple[Scorer, ...], deadline: float) -> Facts:
        """Trains until the weights lie in the trial's folder, and ends the process. Returns the facts for `restore`."""
        spec, preset, outcome = self.spec, self.spec.preset, self.outcome
        what = f"the framework was not imported within the start-up allowance of {preset.startup_seconds:g} s"
        ready = trainer.expect("ready", deadline, math.inf, what)
        with unexpected_as_crash("its first message"):
            outcome.device, outcome.device_name = str(ready["device"]), str(ready["device_name"])
            outcome.threads, outcome.thread_settings = ready["threads"], self.environment.thread_settings()
            outcome.versions = {str(key): str(value) for key, value in ready["versions"].items()}
        facts = Facts(
            vocabulary=self.dataset.tokenizer.vocabulary,
            bos=self.dataset.tokenizer.bos,
            seed=spec.seed,
            backend=preset.backend,
            device=outcome.device,
            sequence_length=preset.sequence_length,
        )
        sampler = Sampler(outcome.device, outcome.device_name)

        def before_clock() -> None:
            # Both are parked before the clock starts, so that their imports take nothing from training.
            for scorer in parked:
                scorer.park(deadline)
            self.pending.take(trainer.cache)
            sampler.start()

        try:
            training = Training(
                trainer,
                preset,
                spec.budget,
                facts,
                self.dataset.train,
                before_clock,
                self.on_progress,
                outcome.retry,
                spec.stop,
            )
            outcome.training = training.state
            arrived = training.serve(deadline)
            sampler.stop()
            weight_file.take(arrived, spec.into / WEIGHTS)
        finally:
            outcome.conditions = sampler.stop()
            # Nothing of training is left while the weights are scored, also not on the device.
            trainer.end()
            outcome.process_peak_mb = trainer.outcome().peak_memory_mb
        assert outcome.training.length is not None, "weights come after a batch"
        return replace(facts, sequence_length=outcome.training.length)

    def _score(self, scorer: Scorer, facts: Facts, texts: Mapping[str, ScoredText]) -> dict[str, audit.ClaimedLosses]:
        """Scores the weights on the texts, by the names of their files of losses, and ends the process."""
        spec, outcome = self.spec, self.outcome
        begun, training = time.monotonic(), outcome.training

        def on_fraction(done: float) -> None:
            self.on_progress(
                Progress(phase="score", fraction=done, step=training.step, loss=training.loss, tokens_per_second=None)
            )

        dtype = training.choices.get("dtype", Choice("")).value
        claims: dict[str, audit.ClaimedLosses] = {}
        scores: dict[str, Score] = {}
        try:
            outcome.weights = weight_file.inspect(spec.into / WEIGHTS)
            (spec.into / FACTS).write_text(json.dumps(to_json(facts)), encoding="utf-8")
            scorer.restore(spec.into / WEIGHTS, facts)
            for name, text in texts.items():
                rows = text.rows(facts.sequence_length)
                losses_BT = claimed_losses(scorer, rows, on_fraction)
                scores[name] = score_of(losses_BT, rows, text)
                claims[name] = audit.ClaimedLosses(
                    rows=rows, losses_BT=losses_BT, vocabulary=facts.vocabulary, dtype=dtype
                )
        except TrialFailed as failure:
            raise TrialFailed(f"while scored: {failure}", failure.verdict) from None
        finally:
            # Before the auditor sees anything: the two are never at work at the same time.
            scorer.end()
            outcome.score_seconds = time.monotonic() - begun
        outcome.score, outcome.test = scores[LOSSES], scores.get(TEST_LOSSES)
        return claims

    def _audit(self, auditor: Scorer, scorer: Scorer, facts: Facts, claim: audit.ClaimedLosses) -> None:
        """The small audit of the claimed losses, by a process that has seen none of them."""
        outcome = self.outcome
        assert outcome.weights is not None
        try:
            weight_file.check_unchanged(outcome.weights)
            auditor.restore(outcome.weights.path, facts)
            result = audit.small(auditor, claim)
            outcome.audit = result.audit
            if fault := result.fault or audit.trained_late(scorer, auditor, self.spec.budget.seconds):
                raise TrialFailed(fault, "invalid")
        except TrialFailed as failure:
            outcome.score = None
            raise TrialFailed(f"the audit: {failure}", failure.verdict) from None


def _keep_output(source: Process, path: Path) -> None:
    if text := source.output():
        path.write_text(text, encoding="utf-8")


def _record(spec: TrialSpec, dataset: Dataset, outcome: _Outcome, begun: float, started: str) -> Trial:
    training, preset, score = outcome.training, spec.preset, outcome.score
    start_up = (time.monotonic() if training.started is None else training.started) - outcome.begun
    speed = training.tokens / training.seconds if training.seconds > 0 and training.stopped is not None else None
    peak = peak_flops(preset, outcome.device, outcome.device_name, training.choices)
    achieved = speed * training.flops_per_token if speed and training.flops_per_token else None
    return Trial(
        verdict=outcome.verdict,
        reason=outcome.reason,
        val_bpb=score.val_bpb if score else None,
        steps=training.step,
        tokens=training.tokens,
        parameters=outcome.weights.parameters if outcome.weights else None,
        startup_seconds=start_up,
        train_seconds=training.seconds,
        score_seconds=outcome.score_seconds,
        wall_seconds=time.monotonic() - begun,
        tokens_per_second=speed,
        flops_per_token=training.flops_per_token,
        mfu=achieved / peak if achieved and peak else None,
        peak_flops=peak,
        peak_memory_mb=training.device_peak_mb or outcome.process_peak_mb,
        weights_sha256=outcome.weights.sha256 if outcome.weights else None,
        seed=spec.seed,
        preset=preset.name,
        backend=preset.backend,
        device=f"{outcome.device} ({outcome.device_name})" if outcome.device else preset.device,
        choices={name: str(choice) for name, choice in training.choices.items()},
        versions={"python": platform.python_version(), **outcome.versions},
        yardstick=dataset.scored("val", preset.score_bytes).yardstick,
        vocabulary=dataset.tokenizer.vocabulary,
        sequence_length=training.length,
        rows=training.rows,
        budget_seconds=spec.budget.seconds,
        budget_steps=spec.budget.steps,
        final_loss=training.loss,
        scored_bytes=score.bytes if score else None,
        sandbox=tier.here().name,
        unenforced=tier.here().unenforced,
        started=started,
        corpus=preset.corpus,
        scored_tokens=score.tokens if score else None,
        audit=outcome.audit,
        device_rows=training.device_rows,
        threads=outcome.threads,
        thread_settings=outcome.thread_settings,
        notes=(outcome.retry.note,) if outcome.retry else (),
        conditions=outcome.conditions,
        stop_progress=training.stop_progress,
        stalled_seconds=training.stalled_seconds,
        test_bpb=outcome.test.val_bpb if outcome.test else None,
        test_yardstick=outcome.test.yardstick if outcome.test else "",
        node=one_line(platform.node()),
    )
