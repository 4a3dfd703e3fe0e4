"""Runs one trial: a process that trains, a fresh one that scores its weights, and the record of both.

Clock, data and score stay on this side. Whatever the trainer does ends in a record, never in an exception here.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import platform
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

import backends
from core.data import Dataset
from core.data.corpora.registry import outside_cache
from core.events import OnProgress, Progress
from core.records import (
    FACTS,
    LOSSES,
    WEIGHTS,
    Audit,
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
from core.trial import audit, compile_cache, failures
from core.trial import weights as handed
from core.trial.course import Course
from core.trial.environment import TrialEnvironment
from core.trial.mfu import peak_flops
from core.trial.process import Process, TrialFailed
from core.trial.scoring import Scorer, claimed_losses, score_of
from core.trial.shared_arrays import NoSpace
from core.trial.spec import TrialSpec, trainer_file
from core.trial.training import Training, check_budget


@dataclass
class _Seen:
    """What is known of a trial so far, so that a failure at any point still has a full record."""

    begun: float  # monotonic seconds
    again: failures.Again | None = None  # set where a first attempt ran out of memory
    course: Course = field(default_factory=Course)
    device: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    device_name: str = ""
    process_peak_mb: float | None = None
    weights: handed.Weights | None = None
    score: Score | None = None
    test: Score | None = None
    conditions: dict[str, float] = field(default_factory=dict)
    score_seconds: float = 0.0
    audit: Audit | None = None
    verdict: TrialVerdict = "scored"
    reason: str = ""


def run_trial(spec: TrialSpec, dataset: Dataset, on_progress: OnProgress = lambda progress: None) -> Trial:
    """Trains and scores `spec.trainer` once, on the preset's corpus, which `dataset` is.

    UserError when the preset or its backend can't be had here, or the disk is full. KeyboardInterrupt passes through.
    In every case all processes have ended and their scratch is gone on return.
    """
    spec = replace(spec, into=spec.into.absolute())  # its processes live elsewhere
    begun, started = time.monotonic(), datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    check_budget(spec.budget)
    environment = backend_environment(spec.preset, hidden=(*outside_cache(dataset.corpus), spec.into))
    seen = _Seen(begun)
    harvest = compile_cache.Harvest(compile_cache.store(spec.preset.backend), spec.into / "compiled")
    with disk_full_as_user_error(spec.into), harvest, contextlib.ExitStack() as files:
        shutil.rmtree(spec.into, ignore_errors=True)
        spec.into.mkdir(parents=True)
        trainer = files.enter_context(trainer_file(spec.trainer, spec.trainer_path))
        try:
            try:
                _train_and_score(spec, trainer, dataset, environment, harvest, seen, on_progress)
            except TrialFailed as failure:
                again = failures.again(failure, seen.course, backends.get(spec.preset.backend), spec.into)
                if again is None:
                    raise
                seen = _Seen(time.monotonic(), again)
                _train_and_score(spec, trainer, dataset, environment, harvest, seen, on_progress)
        except (TrialFailed, NoSpace) as error:
            ended = failures.judge(error)
            seen.verdict = "invalid" if ended.verdict == "invalid" else "crash"
            seen.reason = str(ended)
        finally:
            lines = (json.dumps(point) + "\n" for point in seen.course.curve)
            (spec.into / "curve.jsonl").write_text("".join(lines), encoding="utf-8")
        if seen.verdict != "scored":
            for name in (WEIGHTS, LOSSES):
                (spec.into / name).unlink(missing_ok=True)
        else:
            harvest.merge()
    return _record(spec, dataset, seen, begun, started)


def backend_environment(preset: Preset, *, hidden: tuple[Path, ...] = ()) -> TrialEnvironment:
    """What the preset's processes live in; UserError if its backend can't run here."""
    if reason := backends.get(preset.backend).missing():
        raise UserError(f"backend {preset.backend!r} can't run here: {reason}")
    return TrialEnvironment(backend=preset.backend, device=preset.device, hidden=hidden)


def _train_and_score(
    spec: TrialSpec,
    file: Path,
    dataset: Dataset,
    environment: TrialEnvironment,
    harvest: compile_cache.Harvest,
    seen: _Seen,
    tell: OnProgress,
) -> None:
    preset, into = spec.preset, spec.into
    text = dataset.scored("val", preset.score_bytes)
    deadline = time.monotonic() + preset.startup_seconds
    tell(Progress(phase="startup", fraction=0.0, step=0, loss=None, tokens_per_second=None))
    with contextlib.ExitStack() as stack:
        trainer = Process("train", file, preset.backend, preset.device, environment, into / "usage.json")
        stack.callback(_keep_output, trainer, into / "output.txt")
        stack.callback(trainer.end)
        # What these two print has seen held-out text and is kept nowhere.
        scorer = Scorer(file, preset, preset.device, environment, into / "usage-score.json")
        stack.callback(scorer.end)
        auditor = Scorer(file, preset, preset.device, environment, into / "usage-audit.json")
        stack.callback(auditor.end)

        ready = trainer.expect(
            "ready",
            deadline,
            float("inf"),
            f"the framework was not imported within the start-up allowance of {preset.startup_seconds:g} s",
        )
        seen.device, seen.device_name = str(ready["device"]), str(ready["device_name"])
        seen.versions = {str(key): str(value) for key, value in ready["versions"].items()}
        facts = Facts(
            vocabulary=dataset.tokenizer.vocabulary,
            bos=dataset.tokenizer.bos,
            seed=spec.seed,
            backend=preset.backend,
            device=seen.device,
            sequence_length=preset.sequence_length,
        )
        sampler = Sampler(seen.device, seen.device_name)
        stack.callback(sampler.stop)

        def before_clock() -> None:
            # Both are parked before the clock starts, so that their imports take nothing from training.
            scorer.park(deadline)
            auditor.park(deadline)
            harvest.take(trainer.cache)
            sampler.start()

        training = Training(trainer, preset, spec.budget, facts, dataset.train, before_clock, tell, seen.again)
        seen.course = training.course
        try:
            arrived = training.serve(deadline)
            sampler.stop()
            path = handed.take(arrived, into / WEIGHTS)
        finally:
            seen.conditions = sampler.stop()
            # Nothing of training is left while the weights are judged, on the device neither.
            trainer.end()
            seen.process_peak_mb = trainer.outcome().peak_memory_mb

        scoring = time.monotonic()
        step, loss = seen.course.step, seen.course.loss
        try:
            seen.weights = handed.inspect(path)
            assert seen.course.length is not None
            facts = replace(facts, sequence_length=seen.course.length)
            (into / FACTS).write_text(json.dumps(to_json(facts)), encoding="utf-8")
            scorer.restore(path, facts)

            def told(done: float) -> None:
                tell(Progress(phase="score", fraction=done, step=step, loss=loss, tokens_per_second=None))

            rows = text.rows(seen.course.length)
            losses_BT = claimed_losses(scorer, rows, told)
            seen.score = score_of(losses_BT, rows, text)
            if spec.test:
                other = dataset.scored("test", preset.score_bytes)
                other_rows = other.rows(seen.course.length)
                seen.test = score_of(claimed_losses(scorer, other_rows, told), other_rows, other)
        except TrialFailed as failure:
            raise TrialFailed(f"while scored: {failure}", failure.verdict) from None
        finally:
            # Before the auditor is shown anything: the two share no moment either.
            scorer.end()
            seen.score_seconds = time.monotonic() - scoring
        try:
            handed.check_unchanged(seen.weights)
            auditor.restore(path, facts)
            claim = audit.Claim(
                rows=rows,
                losses_BT=losses_BT,
                vocabulary=facts.vocabulary,
                dtype=dtype_of(seen.course.choices),
            )
            found = audit.small(auditor, claim)
            seen.audit = found.audit
            if fault := found.fault or audit.trained_late(scorer, auditor, spec.budget.seconds):
                raise TrialFailed(fault, "invalid")
        except TrialFailed as failure:
            seen.score = None
            raise TrialFailed(f"the audit: {failure}", failure.verdict) from None
        # Not before: an auditor that could read the claims would only have to agree with them.
        np.save(into / LOSSES, losses_BT.ravel()[: len(text.stream) - 1], allow_pickle=False)


def dtype_of(choices: Mapping[str, str]) -> str:
    """The dtype that a trainer has told among its choices: "bfloat16 (a reason)"; empty if it told none."""
    return choices.get("dtype", "").partition(" ")[0]


def _keep_output(source: Process, path: Path) -> None:
    if text := source.output():
        path.write_text(text, encoding="utf-8")


def _record(spec: TrialSpec, dataset: Dataset, seen: _Seen, begun: float, started: str) -> Trial:
    course, preset, score = seen.course, spec.preset, seen.score
    start_up = (time.monotonic() if course.started is None else course.started) - seen.begun
    speed = course.tokens / course.seconds if course.seconds > 0 and course.stopped is not None else None
    peak = peak_flops(preset, seen.device, seen.device_name, course.choices)
    achieved = speed * course.flops_per_token if speed and course.flops_per_token else None
    fields: dict[str, Any] = dict(
        verdict=seen.verdict,
        reason=seen.reason,
        val_bpb=score.val_bpb if score else None,
        steps=course.step,
        tokens=course.tokens,
        parameters=seen.weights.parameters if seen.weights else None,
        startup_seconds=start_up,
        train_seconds=course.seconds,
        score_seconds=seen.score_seconds,
        wall_seconds=time.monotonic() - begun,
        tokens_per_second=speed,
        flops_per_token=course.flops_per_token,
        mfu=achieved / peak if achieved and peak else None,
        peak_flops=peak,
        peak_memory_mb=course.device_peak_mb or seen.process_peak_mb,
        weights_sha256=seen.weights.sha256 if seen.weights else None,
        seed=spec.seed,
        preset=preset.name,
        backend=preset.backend,
        device=f"{seen.device} ({seen.device_name})" if seen.device else preset.device,
        choices=course.choices,
        versions={"python": platform.python_version(), **seen.versions},
        yardstick=dataset.scored("val", preset.score_bytes).yardstick,
        vocabulary=dataset.tokenizer.vocabulary,
        sequence_length=course.length,
        rows=course.rows,
        budget_seconds=spec.budget.seconds,
        budget_steps=spec.budget.steps,
        final_loss=course.loss,
        scored_bytes=score.bytes if score else None,
        sandbox=tier.here().name,
        unenforced=tier.here().unenforced,
        started=started,
        corpus=preset.corpus,
        scored_tokens=score.tokens if score else None,
        audit=seen.audit,
        device_rows=course.device_rows,
        notes=(seen.again.note,) if seen.again else (),
        conditions=seen.conditions,
        test_bpb=seen.test.val_bpb if seen.test else None,
        test_yardstick=seen.test.yardstick if seen.test else "",
    )
    return Trial(**fields)
