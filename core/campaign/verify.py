"""Verifies a campaign again from its ledger, refs and weights alone: its records, verdicts and the champions' scores.

Changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from core.campaign.judge.base import Policy
from core.campaign.verdict_replay import VerdictReplay
from core.records import FACTS, WEIGHTS, Experiment, Trial, UserError, one_yardstick
from core.store.reader import CampaignReader
from core.store.repository import GitFailed, Repo
from core.system.files import file_sha256
from core.trainer.fingerprint import fingerprint, nodes
from core.trial.engine import Engine
from core.trial.spec import AuditSpec

UNREADABLE = (UserError, ValueError, TypeError, OSError)  # what damaged rows and objects end in


@dataclass(frozen=True, kw_only=True)
class Check:
    """The result of one check."""

    subject: str  # the row: "experiment 3", "trial 0 of experiment 3"
    what: str
    fault: str = ""  # empty: it holds
    found: str = ""  # how closely, in a few words


def of_records(campaign: CampaignReader, policy: Policy) -> Iterator[Check]:
    """Checks ledger, refs and hashes, and replays every verdict with the policy that it is by. No model is run."""
    ledger, repo = campaign.ledger, campaign.repo
    altered = ledger.altered()
    for row in altered:
        yield Check(subject=row, what="seal", fault="was changed after it was written")
    if any(row.startswith("the ledger's file") for row in altered):
        return
    if not altered:
        yield Check(subject="ledger", what="seal", found=f"{ledger.count()} experiments as they were written")
    try:
        repo.fsck()
        yield Check(subject="repository", what="git fsck")
    except GitFailed as error:
        yield Check(subject="repository", what="git fsck", fault=str(error))
    for row in ledger.contradictions():
        yield Check(subject=row, what="columns", fault="its columns differ from its record")
    champion: Experiment | None = None
    replay = VerdictReplay(campaign, policy)
    for number in range(ledger.count()):
        try:
            experiment = campaign.experiment(number)
            fault = _contradiction(experiment, champion, repo)
            unfounded = replay.fault(experiment)
        except UNREADABLE as error:
            yield Check(subject=f"experiment {number}", what="record", fault=f"can't be read: {error}")
            repo.close()  # the helper process that a damaged object has ended
            continue
        yield Check(subject=f"experiment {number}", what="record", fault=fault, found=experiment.verdict)
        yield Check(subject=f"experiment {number}", what="verdict", fault=unfounded, found=experiment.verdict)
        if experiment.verdict == "keep":
            champion = experiment
            for place, trial in enumerate(experiment.trials):
                yield _files(campaign.files.trial(number, place), trial, f"trial {place} of experiment {number}")
    head = repo.head()
    if champion is not None and head != champion.commit:
        fault = f"is at {head}, the last one kept is {champion.commit}"
        yield Check(subject=f"branch {repo.branch}", what="champion", fault=fault)


def of_scores(campaign: CampaignReader, engine: Engine) -> Iterator[Check]:
    """Scores and audits the weights of every champion again. `engine` has its corpus prepared."""
    ledger, repo = campaign.ledger, campaign.repo
    champion: Experiment | None = None
    baseline = ledger.experiment(0)
    for number in range(ledger.count()):
        try:
            experiment = campaign.experiment(number)
            if experiment.verdict != "keep":
                continue
            text = repo.text(experiment.commit)
        except UNREADABLE:  # `of_records` has reported it
            repo.close()
            continue
        for place, trial in enumerate(experiment.trials):
            at, subject = campaign.files.trial(number, place), f"trial {place} of experiment {number}"
            if not (at / WEIGHTS).is_file() or not (at / FACTS).is_file():
                continue  # `of_records` has reported it
            spec = AuditSpec(
                trainer=text,
                preset=campaign.preset,
                trial=trial,
                folder=at,
                reference=None if champion is None else campaign.files.trial_with(champion, trial.seed),
                noise_bpb=baseline.spread if baseline is not None else None,
            )
            yield _scored_again(engine, spec, subject)
            result = engine.review(spec)
            closely = (
                ""
                if result.audit is None
                else f"{result.audit.positions} positions, largest difference {result.audit.largest:.2g} nats of "
                f"{result.audit.tolerance:g}, a gain of {result.audit.hidden_bpb:.4f} bpb could be hidden"
            )
            yield Check(subject=subject, what="audit", fault=result.fault, found=closely)
        champion = experiment


def _contradiction(experiment: Experiment, champion: Experiment | None, repo: Repo) -> str:
    """What contradicts the record in git: its ref, its trainer, its parent or what it was built on."""
    number, commit = experiment.number, experiment.commit
    if (pinned := repo.experiment(number)) != commit:
        return f"refs/experiments/{number} is {pinned or 'missing'}, the record says {commit}"
    text = repo.text(commit)
    if fingerprint(text) != experiment.fingerprint:
        return "the trainer of its commit has another fingerprint"
    if experiment.nodes is not None and nodes(text) != experiment.nodes:
        return f"the trainer of its commit has {nodes(text)} nodes, its record says {experiment.nodes}"
    if champion is None:
        return "" if experiment.verdict == "keep" else "the first experiment was not kept"
    if experiment.parent != champion.commit:
        return f"its parent is not the champion of its time, {champion.commit}"
    base = experiment.base or experiment.parent
    return (
        "" if repo.parent(commit) == base else f"its commit is built on {repo.parent(commit)}, its record says {base}"
    )


def _files(at: Path, trial: Trial, subject: str) -> Check:
    """Whether the weights are there, with the recorded hash, and their facts."""
    weights = at / WEIGHTS
    if not weights.is_file():
        return Check(subject=subject, what="weights", fault=f"{weights} is missing")
    if (found := file_sha256(weights)) != trial.weights_sha256:
        return Check(subject=subject, what="weights", fault=f"have the hash {found[:12]}, not {trial.weights_sha256}")
    if not (at / FACTS).is_file():
        return Check(subject=subject, what="weights", fault=f"{at / FACTS} is missing")
    return Check(subject=subject, what="weights", found=found[:12])


def _scored_again(engine: Engine, spec: AuditSpec, subject: str) -> Check:
    from core.trial import audit_math

    trial = spec.trial
    try:
        again = engine.score(spec)
        one_yardstick((trial.yardstick, again.yardstick), "audit with the version and the corpus of that time")
    except UserError as error:
        return Check(subject=subject, what="score", fault=str(error))
    assert trial.val_bpb is not None
    # Rounding is far smaller in a mean over the whole text than in a single loss.
    allowed = audit_math.tolerance(trial.choice("dtype")) / 100 * again.tokens / again.bytes / math.log(2)
    if abs(again.val_bpb - trial.val_bpb) > allowed:
        fault = f"the weights score {again.val_bpb:.6f} bpb, the record says {trial.val_bpb:.6f}"
        return Check(subject=subject, what="score", fault=fault)
    return Check(
        subject=subject, what="score", found=f"{again.val_bpb:.6f}, off by {again.val_bpb - trial.val_bpb:.1e}"
    )
