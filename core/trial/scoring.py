"""The supervisor's side of scoring: a fresh process that restores a model from its weights and answers about it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from core.data.scored import Rows, ScoredText
from core.records import Facts, Preset, Score, to_json
from core.trial.child.client import Batch
from core.trial.environment import TrialEnvironment
from core.trial.process import Process, TrialFailed
from core.trial.shared_arrays import SharedArray

REQUEST_TOKENS = 1 << 16  # of one request: enough for a large device, few enough to show progress


class Scorer:
    """A process that holds one model. Use as a context manager."""

    def __init__(self, trainer: str, preset: Preset, environment: TrialEnvironment, usage: Path) -> None:
        self._preset = preset
        self._process = Process("score", trainer, environment, usage)
        self.restore_seconds = 0.0
        self.answer_seconds: list[float] = []
        self._question: SharedArray | None = None
        self._answer: SharedArray | None = None

    def park(self, deadline: float) -> None:
        """Waits until everything is imported. `deadline`: monotonic seconds."""
        what = f"the scoring process was not ready within {self._preset.startup_seconds:g} s"
        self._process.expect("ready", deadline, math.inf, what)
        self._process.expect("parked", deadline, math.inf, what)

    def restore(self, weights: Path, facts: Facts) -> None:
        """Has the model made from a copy of the weights."""
        given = str(self._process.hand(weights))
        allowance = self._preset.startup_seconds
        what = f"restore took longer than {allowance:g} s"
        begun = time.monotonic()
        deadline = begun + allowance
        self._process.send("facts", deadline, facts=to_json(facts))
        self._process.send("restore", deadline, weights=given)
        self._process.expect("restored", deadline, math.inf, what)
        self.restore_seconds = time.monotonic() - begun

    def losses(self, tokens_BT: Batch, targets_BT: Batch) -> npt.NDArray[np.float32]:
        """Nats of each target as the process claims them, float32 [B, T]."""
        rows, length = tokens_BT.shape
        return self._ask("losses", (rows, length), (tokens_BT, targets_BT), rows=rows, length=length)

    def logits(self, tokens_BT: Batch, positions_N2: Batch, vocabulary: int) -> npt.NDArray[np.float32]:
        """The whole logits at N positions, each a (row, time): float32 [N, vocabulary]."""
        (rows, length), count = tokens_BT.shape, len(positions_N2)
        shape = (count, vocabulary)
        return self._ask("logits", shape, (tokens_BT, positions_N2), rows=rows, length=length, count=count)

    def output(self) -> str:
        """What the process printed. For a person only: it has seen the validation text."""
        return self._process.output()

    def end(self) -> None:
        """Ends the process."""
        self._process.end()
        for array in (self._question, self._answer):
            if array is not None:
                array.close()

    def _ask(
        self, kind: str, shape: tuple[int, int], arrays: tuple[Batch, Batch], **content: int
    ) -> npt.NDArray[np.float32]:
        scratch = self._process.scratch
        self._question = SharedArray.fitting(self._question, scratch, "question", sum(array.nbytes for array in arrays))
        self._answer = SharedArray.fitting(self._answer, scratch, "answer", 4 * math.prod(shape))
        self._question.write(*arrays)
        allowance = max(self._preset.silence_seconds, self._preset.startup_seconds)
        what = f"an answer while scored took longer than {allowance:g} s"
        begun = time.monotonic()
        deadline = begun + allowance
        paths = {"array": str(self._question.path), "answer": str(self._answer.path)}
        self._process.send(kind, deadline, **paths, **content)
        answer = self._process.expect("answered", deadline, math.inf, what)
        self.answer_seconds.append(time.monotonic() - begun)
        if answer.get("shape") != list(shape):
            raise TrialFailed(f"{kind} are {_shown(answer.get('shape'))}, not {list(shape)}")
        try:
            return self._answer.read(shape)
        except OSError as error:
            raise TrialFailed(str(error), "invalid") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.end()
        self._process.__exit__(kind, error, trace)


def _shown(shape: object) -> str:
    whole = (
        isinstance(shape, list) and len(shape) < 4 and all(type(size) is int and 0 <= size < 2**31 for size in shape)
    )
    return str(shape) if whole else "of no shape"


def rows_at_once(count: int, length: int) -> int:
    """Rows of one request, of `count` in all: at least two requests, so that the first can be told from the others."""
    return max(1, min(REQUEST_TOKENS // length, math.ceil(count / 2)))


def claimed_losses(
    scorer: Scorer, rows: Rows, on_fraction: Callable[[float], None] = lambda done: None
) -> npt.NDArray[np.float32]:
    """Nats of every target of the rows as the process claims them, float32 [B, T].

    TrialFailed for losses that can't be any model's: negative or not finite where they count.
    """
    count, length = rows.inputs_BT.shape
    at_once = rows_at_once(count, length)
    losses_BT = np.empty((count, length), np.float32)
    for first in range(0, count, at_once):
        part = slice(first, first + at_once)
        losses_BT[part] = scorer.losses(rows.inputs_BT[part], rows.targets_BT[part])
        counted = losses_BT[part][rows.bytes_BT[part] > 0]
        if not np.isfinite(counted).all():
            raise TrialFailed("a loss on the validation text is not finite")
        # Rounding alone can put a certain prediction a little below zero.
        if (counted < -1e-3).any():
            raise TrialFailed("a loss on the validation text is negative, so it belongs to no distribution", "invalid")
        on_fraction(min(1.0, (first + at_once) / count))
    return losses_BT


def score_of(losses_BT: npt.NDArray[np.float32], rows: Rows, text: ScoredText) -> Score:
    """Bits per byte of losses in nats, [B, T], on the rows of the text; every byte counts once. Summed in float64."""
    counts_BT = rows.bytes_BT > 0
    covered = int(rows.bytes_BT.sum())
    assert covered == text.bytes, "the windows do not cover the text"
    nats = float(losses_BT[counts_BT].sum(dtype=np.float64))
    return Score(
        val_bpb=nats / (math.log(2) * covered), bytes=covered, tokens=int(counts_BT.sum()), yardstick=text.yardstick
    )
