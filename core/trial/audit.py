"""Checks the claimed losses of a score against a fresh process, which has to give whole logits.

The rows that it sees end, at each audited place, with the last token that a causal model may use; random tokens follow.
So it never sees a token that it has to predict, and it shares nothing writable with the process that claimed the
losses. `audit_math.py` decides which differences matter.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from core.data.scored import Rows
from core.records import Audit
from core.trial import audit_math
from core.trial.audit_math import Random
from core.trial.child.client import Batch
from core.trial.process import TrialFailed
from core.trial.scoring import REQUEST_TOKENS, Scorer, claimed_losses, rows_at_once

SMALL_DRAWS = 8  # uniform draws, and as many weighted by gain
DEEP_DRAWS = (128, 1024)  # of each kind, at least and at most
LEAST_NOISE = 0.002  # bits per byte, for a campaign whose noise is unknown: the least difference between seeds seen
PERMUTED_ROWS = 32
# What restore and the first answer may take beyond a later answer: time to build a model, compile it and warm up.
RESTORE_SECONDS, RESTORE_SHARE = 20.0, 0.05  # or this share of the trial's budget
_COLLAPSED = 0.5  # share of what was learned that permuted weights must lose
_REPEATED_QUESTIONS = 6
_LEARNED = 0.1  # share of a uniform guess's loss; a model that learned less has nothing to lose


@dataclass(frozen=True, kw_only=True)
class ClaimedLosses:
    """A model's losses on the scored rows as its process claims them, float32 [B, T], to be audited."""

    rows: Rows
    losses_BT: npt.NDArray[np.float32]  # noqa: N815
    vocabulary: int
    dtype: str  # as the trainer describes it: "bfloat16"
    reference: npt.NDArray[np.float32] | None = None  # of the model that it is compared with, flat [B * T]

    @property
    def nats_per_bpb(self) -> float:
        """Nats a counted token in one bit per byte."""
        return math.log(2) * int(self.rows.bytes_BT.sum()) / max(1, int((self.rows.bytes_BT > 0).sum()))


@dataclass(frozen=True)
class AuditResult:
    """The record of an audit, None if there is none; `fault` says what is wrong with the claim, empty if nothing is."""

    audit: Audit | None
    fault: str
    test: Audit | None = None  # of the test split, where it was audited too


def small(auditor: Scorer, claim: ClaimedLosses, random: Random | None = None) -> AuditResult:
    """The audit of every trial: enough positions to find a claim that is wrong in general."""
    return _examine(auditor, claim, "small", (SMALL_DRAWS, SMALL_DRAWS), math.inf, random or _unpredictable())


def trained_late(scorer: Scorer, auditor: Scorer, budget_seconds: float | None) -> str:
    """The fault if restoring took so long that the model may still have been training. Both have answered before."""
    steady = statistics.median(scorer.answer_seconds[1:] or [0.0])
    late = auditor.restore_seconds + auditor.answer_seconds[0] - steady
    allowed = max(RESTORE_SECONDS, RESTORE_SHARE * (budget_seconds or 0.0))
    if late <= allowed:
        return ""
    return f"restore and its first answer took {late:.1f} s, which is time to train in; {allowed:g} s are allowed"


def deep(auditor: Scorer, claim: ClaimedLosses, noise_bpb: float, random: Random | None = None) -> AuditResult:
    """The audit of a candidate to keep: enough positions to bound a hidden gain below the noise, within limits."""
    random = random or _unpredictable()
    noise = max(noise_bpb, LEAST_NOISE) * claim.nats_per_bpb
    claimed, reference, counted = _flat(claim)
    gain = float(audit_math.gains_on(claimed[counted], reference[counted]).mean())
    uniform, weighted = (_within(audit_math.draws_needed(most, noise)) for most in (audit_math.TRADED, gain))
    while True:
        result = _examine(auditor, claim, "deep", (uniform, weighted), noise, random)
        found = result.audit
        if result.fault or found is None or audit_math.scatter(found.mean, found.standard_error) <= noise:
            return result
        uniform = _within(4 * uniform)


def permuted(permuted_model: Scorer, claim: ClaimedLosses, random: Random | None = None) -> tuple[float | None, str]:
    """Bits per byte of a model restored from the same weights in another order, and the fault if that changes little.

    None stands for losses that are not finite, or none at all.
    """
    random = random or _unpredictable()
    count = len(claim.losses_BT)
    some = np.sort(random.choice(count, min(count, PERMUTED_ROWS), replace=False))
    rows = Rows(claim.rows.inputs_BT[some], claim.rows.targets_BT[some], claim.rows.bytes_BT[some])
    counted = rows.bytes_BT > 0
    before = float(claim.losses_BT[some][counted].mean(dtype=np.float64))
    try:
        after = float(claimed_losses(permuted_model, rows)[counted].mean(dtype=np.float64))
    except TrialFailed as failure:
        return None, str(failure) if failure.verdict == "invalid" else ""
    bpb = after / claim.nats_per_bpb
    uniform = math.log(claim.vocabulary)
    if uniform - before < _LEARNED * uniform or after - before >= _COLLAPSED * (uniform - before):
        return bpb, ""
    return bpb, (
        f"with its weights in another order it still scores {bpb:.4f} bpb, against {before / claim.nats_per_bpb:.4f}: "
        "restore gives a model that does not come from the weights"
    )


def _examine(
    auditor: Scorer,
    claim: ClaimedLosses,
    kind: Literal["small", "deep"],
    draws: tuple[int, int],
    noise: float,
    random: Random,
) -> AuditResult:
    begun = time.monotonic()
    claimed, reference, counted = _flat(claim)
    allowed = audit_math.tolerance(claim.dtype)
    drawn = audit_math.draw(claimed, reference, counted, *draws, random)
    places = drawn.places
    audited = _audited(auditor, claim, places, random)
    difference = audited - claimed[places]
    uniform = difference[np.isin(places, drawn.uniform)]
    mean = float(uniform.mean())
    error = float(uniform.std(ddof=1)) / math.sqrt(len(uniform)) if len(uniform) > 1 else 0.0
    worst = int(np.abs(difference).argmax())
    fault = ""
    if abs(difference[worst]) > allowed:
        beyond = int((np.abs(difference) > allowed).sum())
        why = _explain(auditor, claim, int(places[worst]), allowed, random)
        fault = (
            f"{why}; at {beyond} of {len(places)} positions the loss is not what it claimed: at one "
            f"{claimed[places[worst]]:.3f} nats were claimed and {audited[worst]:.3f} found"
        )
    elif audit_math.biased(mean, error, len(uniform), allowed):
        fault = f"the claimed losses are off by {mean:.4f} nats a token on average: more than rounding comes to"
    elif kind == "deep" and draws[0] == DEEP_DRAWS[1] and audit_math.scatter(mean, error) > noise:
        fault = f"the claimed losses scatter by {error:.4f} nats about those found: too much to bound a hidden gain"
    found = Audit(
        kind=kind,
        positions=len(places),
        dtype=claim.dtype or "unknown",
        tolerance=allowed,
        largest=float(np.abs(difference).max()),
        mean=mean,
        standard_error=error,
        hidden_bpb=audit_math.hidden_nats(drawn, mean, error) / claim.nats_per_bpb,
        permuted_bpb=None,
        seconds=time.monotonic() - begun,
    )
    return AuditResult(found, fault)


def _audited(
    auditor: Scorer, claim: ClaimedLosses, places: audit_math.Places, random: Random
) -> npt.NDArray[np.float64]:
    """The losses at the places, ascending, from whole logits over pasts alone."""
    length = claim.rows.inputs_BT.shape[1]
    targets = claim.rows.targets_BT.ravel()
    audited = np.empty(len(places))
    for batch in audit_math.batches(places, length, max(1, REQUEST_TOKENS // length)):
        shown = batch if len(batch) > 1 else np.repeat(batch, 2)  # a row alone is one more shape for a compiler
        asked = audit_math.replaced(claim.rows, shown, claim.vocabulary, random)
        at = np.stack((np.arange(len(shown)), shown % length), axis=1).astype(np.int32)
        logits_NV = _logits(auditor, claim, asked, at)[: len(batch)]
        audited[np.searchsorted(places, batch)] = audit_math.losses_from(logits_NV, targets[batch])
    return audited


def _logits(auditor: Scorer, claim: ClaimedLosses, tokens_BT: Batch, positions_N2: Batch) -> npt.NDArray[np.float32]:
    logits_NV = auditor.logits(tokens_BT, positions_N2, claim.vocabulary)
    if np.isnan(logits_NV).any() or (logits_NV == np.inf).any() or (logits_NV == -np.inf).all(axis=-1).any():
        raise TrialFailed("its logits are no distribution: some are not finite", "invalid")
    return logits_NV


def _explain(auditor: Scorer, claim: ClaimedLosses, place: int, allowed: float, random: Random) -> str:
    """What the claim at a place depends on. Asks questions that the audit itself must not ask."""
    length = claim.rows.inputs_BT.shape[1]
    row, at = divmod(place, length)
    target = claim.rows.targets_BT[row, at : at + 1]
    claimed = float(claim.losses_BT[row, at])

    def loss(tokens_BT: Batch, index: int) -> float:
        # A position in each row, because a row without one need not be computed at all.
        everywhere_N2 = np.stack((np.arange(len(tokens_BT)), np.full(len(tokens_BT), at)), axis=1).astype(np.int32)
        logits_NV = _logits(auditor, claim, tokens_BT, everywhere_N2)
        return float(audit_math.losses_from(logits_NV[index : index + 1], target)[0])

    past = audit_math.replaced(claim.rows, np.array([place]), claim.vocabulary, random)
    again = np.array([loss(past, 0) for _ in range(_REPEATED_QUESTIONS)])
    if np.ptp(again) > allowed:
        steps = np.diff(again)
        if (steps <= 0).all() or (steps >= 0).all():
            return "the same question gets another answer the more often it is asked: it remembers what it was shown"
        return "the same question gets another answer each time, so the model is random (dropout left on?)"
    if abs(again[0] - claimed) <= allowed:  # alone it answers as it claimed
        return "its logits depend on other rows of the batch"
    whole = claim.rows.inputs_BT[row : row + 1]
    first, second = loss(whole, 0), loss(whole, 0)
    if abs(first - second) > allowed:
        return "a row that was shown before gets another answer: it remembers what it was shown"
    if abs(first - claimed) <= allowed:
        return "its logits depend on tokens that come later"
    count = len(claim.rows.inputs_BT)
    for rows, index in _neighbours(row, count, rows_at_once(count, length)):
        if abs(loss(claim.rows.inputs_BT[rows], index) - claimed) <= allowed:
            return "its logits depend on other rows of the batch"
    return "they are not the losses of its logits: the scorer was patched, or it knows what it was shown"


def _neighbours(row: int, count: int, at_once: int) -> Iterator[tuple[slice, int]]:
    """Batches that hold the row among others: the one of the claims, and smaller ones that a device may have taken."""
    first = row - row % at_once
    yield slice(first, first + at_once), row - first
    for size in (2, 4, 8):
        low = max(0, min(row - row % size, count - size))
        yield slice(low, low + size), row - low


def _within(draws: int) -> int:
    least, most = DEEP_DRAWS
    return min(most, max(least, draws))


def _flat(claim: ClaimedLosses) -> tuple[audit_math.Losses, audit_math.Losses, npt.NDArray[np.bool_]]:
    """Claimed losses, those that they are compared with, and which of them count; [N] each."""
    reference = audit_math.unigram_losses(claim.rows) if claim.reference is None else claim.reference
    return claim.losses_BT.ravel(), reference, claim.rows.bytes_BT.ravel() > 0


def _unpredictable() -> Random:
    """Seeded by the system: no trainer can know where an audit looks."""
    return np.random.default_rng()
