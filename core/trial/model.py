"""A model restored from recorded weights, for sampling and for later checks of a score."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from core.data.scored import ScoredText
from core.records import TRAINER, Facts, Preset, Score, UserError
from core.system import scratch
from core.trial.child.client import Batch
from core.trial.process import CannotStart, TrialFailed
from core.trial.scoring import Scorer, claimed_losses, score_of
from core.trial.supervisor import backend_environment


class Model:
    """A restored model in a process of its own."""

    def __init__(self, scorer: Scorer, facts: Facts) -> None:
        self.facts = facts
        self._scorer = scorer

    def logits(self, tokens_BT: Batch, positions_N2: Batch) -> npt.NDArray[np.float32]:
        """The whole logits at N positions, each a (row, time): float32 [N, vocabulary]."""
        return self._scorer.logits(tokens_BT, positions_N2, self.facts.vocabulary)

    def score(self, text: ScoredText) -> Score:
        """Bits per byte of these weights on that text."""
        rows = text.rows(self.facts.sequence_length)
        return score_of(claimed_losses(self._scorer, rows), rows, text)


@contextlib.contextmanager
def open_model(trainer: str, weights: Path, facts: Facts, preset: Preset) -> Iterator[Model]:
    """The model that the text `trainer` restores from `weights`. UserError if it can't be restored here."""
    if not weights.exists():
        raise UserError(f"there are no weights at {weights}: restore them from a copy, or export the model again")
    with (
        scratch.folder() as folder,
        Scorer(trainer, preset, backend_environment(preset), folder / "usage.json") as scorer,
    ):
        try:
            scorer.park(time.monotonic() + preset.startup_seconds)
            scorer.restore(weights, facts)
            yield Model(scorer, facts)
        except (TrialFailed, CannotStart) as error:
            raise UserError(f"{TRAINER} could not restore {weights}: {error}\n{scorer.output()}") from None
