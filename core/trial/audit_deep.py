"""The deep audit of a finished trial, from its files alone.

A candidate passes it before it is kept; a finished campaign can be audited the same way at any later time.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from core.data import Dataset
from core.records import LOSSES, TEST_LOSSES, Audit, Facts, UserError
from core.system import scratch
from core.trial import audit
from core.trial import weights as weight_file
from core.trial.process import TrialFailed
from core.trial.scoring import Scorer
from core.trial.spec import AuditSpec, read_facts
from core.trial.supervisor import backend_environment


def review(spec: AuditSpec, dataset: Dataset, random: np.random.Generator | None = None) -> audit.AuditResult:
    """Audits many positions, if the spec says so also of the test split; permuted weights have to give a worse model.

    UserError where a file is missing or the backend can't run here. KeyboardInterrupt passes through; all processes
    have ended on return.
    """
    begun = time.monotonic()
    spec = replace(spec, folder=spec.folder.absolute())  # its processes live elsewhere
    facts = read_facts(spec.folder)
    if not spec.weights.is_file():
        raise UserError(f"{spec.weights} was deleted: restore it from a copy of the campaign's folder")
    claim = claim_of(spec, dataset, facts)
    on_test = claim_of(spec, dataset, facts, "test") if spec.test else None
    test: Audit | None = None
    with scratch.folder() as folder:
        try:
            if weight_file.inspect(spec.weights).sha256 != spec.trial.weights_sha256:
                return audit.AuditResult(None, "the weights are not those that the score was recorded of")
            with _restored(spec, facts, spec.weights, folder) as auditor:
                found = audit.deep(auditor, claim, spec.noise_bpb or 0.0, random)
                if on_test is not None and not found.fault:
                    result = audit.deep(auditor, on_test, spec.noise_bpb or 0.0, random)
                    test = result.audit
                    if result.fault:
                        return replace(found, fault=f"on the test split: {result.fault}", test=test)
        except TrialFailed as failure:
            return audit.AuditResult(None, str(failure))
        if found.fault or found.audit is None:
            return found
        score, fault = _permuted(spec, facts, folder, claim, random)
    return audit.AuditResult(replace(found.audit, permuted_bpb=score, seconds=time.monotonic() - begun), fault, test)


def claim_of(
    spec: AuditSpec, dataset: Dataset, facts: Facts, split: Literal["val", "test"] = "val"
) -> audit.ClaimedLosses:
    """What the trial claimed, from its file of losses. UserError where that doesn't fit the scored text."""
    text, name = dataset.scored(split, spec.preset.score_bytes), LOSSES if split == "val" else TEST_LOSSES
    rows = text.rows(facts.sequence_length)
    flat = losses_in(spec.folder, name)
    if flat is None or flat.size != max(0, len(text.stream) - 1):
        raise UserError(f"{spec.folder / name} does not hold the losses of {spec.preset.corpus}'s scored text")
    padding = (0, rows.inputs_BT.size - flat.size)
    reference = None if spec.reference is None else losses_in(spec.reference, name)
    if reference is not None:
        reference = np.pad(reference, padding) if reference.size == flat.size else None
    return audit.ClaimedLosses(
        rows=rows,
        losses_BT=np.pad(flat, padding).reshape(rows.inputs_BT.shape),
        vocabulary=facts.vocabulary,
        dtype=spec.trial.choice("dtype"),
        reference=reference,
    )


def losses_in(folder: Path, name: str = LOSSES) -> npt.NDArray[np.float32] | None:
    """The nats of each scored token that a trial left, float32 [N]; None if there are none that can be read."""
    try:
        found = np.load(folder / name, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found if found.dtype == np.float32 and found.ndim == 1 else None


@contextlib.contextmanager
def _restored(spec: AuditSpec, facts: Facts, weights: Path, folder: Path) -> Iterator[Scorer]:
    """A fresh process with the model of these weights. A failure in it reads as the audit's."""
    preset, environment = spec.preset, backend_environment(spec.preset).beside_others()
    with Scorer(spec.trainer, preset, environment, folder / "usage.json") as scorer:
        scorer.park(time.monotonic() + preset.startup_seconds)
        scorer.restore(weights, facts)
        yield scorer


def _permuted(
    spec: AuditSpec,
    facts: Facts,
    folder: Path,
    claim: audit.ClaimedLosses,
    random: np.random.Generator | None,
) -> tuple[float | None, str]:
    draw = random or np.random.default_rng()
    # Arrays of integers may be indices, which mean nothing in another order: without them if with them it fails.
    for kinds in ("fiu", "f"):
        other = weight_file.permuted(spec.weights, folder / f"permuted-{kinds}.safetensors", draw, kinds)
        try:
            with _restored(spec, facts, other, folder) as permuted_model:
                return audit.permuted(permuted_model, claim, draw)
        except TrialFailed:
            continue
    return None, "restore refuses the same weights in another order, so whether it needs them can't be seen"
