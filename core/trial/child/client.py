"""The trainer's end of the supervisor's channel. It holds no clock, no data set and no score."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from backends.base import Logits
from core.records import WEIGHTS, Facts, UserError
from core.trial.channel import Channel, Message
from core.trial.shared_arrays import map_shared_array

Batch = npt.NDArray[np.int32]
Restore = Callable[[dict[str, npt.NDArray[Any]], Facts], Logits]


class TrialOver(Exception):
    """The supervisor has ended this trial, or its answer fits no request."""


class Client:
    """The trial as its trainer sees it. One thread, one request at a time."""

    def __init__(
        self,
        channel: Channel,
        facts: Facts,
        scratch: Path,
        *,
        peak_memory_mb: Callable[[], float | None],
        before_training: Callable[[], None],
        logits_shape: Callable[[Logits, int], tuple[int, ...]],
    ) -> None:
        """`logits_shape` is the backend's, on this trial's device."""
        self.facts = facts
        self.progress = 0.0  # 0 at the first batch, rising towards 1
        self.device_rows = 1
        self._channel = channel
        self._scratch = scratch
        self._peak_memory_mb = peak_memory_mb
        self._before_training = before_training
        self._logits_shape = logits_shape
        self._length = facts.sequence_length  # of the last batches that were asked for

    def ask_for_rows(self, rows: int) -> None:
        """Asks how many rows the device may take at once, and sets `device_rows`. `join` calls it."""
        self.device_rows = int(self._ask("join", device_rows=int(rows))["device_rows"])

    def warmup(self, rows: int, length: int) -> Iterator[Batch]:
        """Batches of random ids, int32 [rows, length + 1], at most 16, before the clock starts. Break when warm."""
        return self._stream("warmup", rows, length)

    def batches(self, rows: int, length: int) -> Iterator[Batch]:
        """The training data, int32 [rows, length + 1], one array a step, until the budget is spent.

        The clock starts with the first. Each array belongs to the trainer: nothing overwrites it.
        """
        self._before_training()
        return self._stream("batch", rows, length)

    def report(self, *, loss: float) -> None:
        """Reports the last step's mean loss in nats a token. A loss that is no number ends the trial."""
        self._channel.send("report", loss=float(loss))

    def describe(self, *, flops_per_token: float, **choices: str) -> None:
        """Reports the cost of a token, forward and backward, and the choices made: `kernel="sdpa (no flash-attn)"`."""
        self._channel.send("describe", flops_per_token=float(flops_per_token), choices=choices)

    def rehearse(self, weights: Mapping[str, npt.NDArray[Any]], restore: Restore) -> None:
        """Restores a model from these weights as scoring will, and checks the shape of its logits: [1, T, vocabulary].

        Call it after warm-up, so that a `restore` that doesn't fit costs no training. ValueError for another shape.
        """
        copies = {name: array.copy() for name, array in as_arrays(weights).items()}
        found = self._logits_shape(restore(copies, replace(self.facts, sequence_length=self._length)), self._length)
        if found != (expected := (1, self._length, self.facts.vocabulary)):
            raise ValueError(
                f"restore gives logits of shape {list(found)} for 1 x {self._length} tokens, not {list(expected)}: "
                "[rows, tokens, vocabulary]"
            )

    def finish(self, weights: Mapping[str, npt.NDArray[Any]]) -> None:
        """Hands over the weights, {name: NumPy array}, and so stops the clock. Nothing after it counts."""
        from safetensors.numpy import save_file

        save_file(as_arrays(weights), self._scratch / WEIGHTS)
        self._ask("finish", peak_memory_mb=self._peak_memory_mb())

    def _stream(self, kind: str, rows: int, length: int) -> Iterator[Batch]:
        self._length = int(length)
        while True:
            answer = self._ask(kind, rows=int(rows), length=int(length))
            if answer.get("end"):
                return
            self.progress = float(answer["progress"])
            yield np.array(map_shared_array(answer["array"], "r", (rows, length + 1), np.int32), dtype=np.int32)

    def _ask(self, kind: str, **content: Any) -> Message:
        self._channel.send(kind, **content)
        answer = self._channel.receive()
        if answer is None or answer["type"] != kind:
            raise TrialOver("the supervisor ended this trial")
        return answer


def as_arrays(weights: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
    """The weights as arrays that a file can hold, of the shapes that they have. TypeError that names the first other.

    Arrays that are contiguous already are not copied.
    """
    if not isinstance(weights, Mapping):
        raise TypeError(f"weights are a mapping from names to arrays, not {type(weights).__name__}")
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name, value in weights.items():
        if not isinstance(name, str):
            raise TypeError(f"a weight's name is text, not {name!r}")
        try:
            array = np.asarray(value, order="C")
        except Exception as error:
            raise TypeError(f"weight {name!r} is no NumPy array: {error}") from error
        if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
            raise TypeError(f"weight {name!r} is {array.dtype}, not float16/32/64, an integer or bool: convert it")
        arrays[name] = array
    return arrays


_current: Client | None = None


def adopt(client: Client) -> None:
    """Sets the client that `join` hands out. The worker calls it."""
    global _current
    _current = client


def join(*, device_rows: int = 1) -> Client:
    """This process's trial. `device_rows`: rows wanted on the device at once; `trial.device_rows` are granted."""
    if _current is None:
        raise UserError("a trainer runs under a supervisor: start it with `autoresearch train --trainer FILE`")
    _current.ask_for_rows(device_rows)
    return _current
