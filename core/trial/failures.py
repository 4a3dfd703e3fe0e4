"""Failures that are not the trainer's last word: out of memory (another attempt), and a full disk (a user's error)."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from backends.base import Backend
from core.records import FIRST_OUTPUT, OUTPUT
from core.system import files
from core.trial.process import TrialFailed
from core.trial.shared_arrays import NoSpace
from core.trial.training_state import TrainingState

_LAST_WORDS = 2000  # characters of output: a framework that takes the process down with it says why there
# As Python, NumPy and safetensors report it; a mapped file that the disk has no block for ends a process with SIGBUS.
_WORDS = re.compile(r"No space left|Disk quota exceeded|Errno 28\b|os error 28\b|ended by SIGBUS|while scored: OSError")


@dataclass(frozen=True, kw_only=True)
class Retry:
    """The limits of the second attempt."""

    device_rows: int  # granted at most
    shape: tuple[int, int] | None  # rows x length of the first attempt's batches, if it came so far
    note: str  # for the record


def retry(failure: TrialFailed, state: TrainingState, backend: Backend, into: Path) -> Retry | None:
    """The limits of a second attempt; None if memory was not the cause, or fewer rows are not possible.

    `into` holds the first attempt's output, which stays under another name.
    """
    rows = state.device_rows
    if rows is None or rows < 2 or state.stopped is not None or failure.verdict != "crash":
        return None
    said, output = str(failure), into / OUTPUT
    if said.startswith("ended ") and output.exists():
        said += output.read_text(encoding="utf-8", errors="replace")[-_LAST_WORDS:]
    if not backend.out_of_memory(said):
        return None
    if output.exists():
        output.replace(into / FIRST_OUTPUT)
    shape = None if state.rows is None or state.length is None else (state.rows, state.length)
    granted = rows // 2
    when = "before the first step" if state.started is None else f"at step {state.step}"
    note = f"out of memory {when} with {rows} rows on the device at once; trained again with {granted}"
    if shape is not None:
        note += f", the same {shape[0]} x {shape[1]} tokens a step"
    return Retry(device_rows=granted, shape=shape, note=note)


def classify_disk_full(failure: TrialFailed | NoSpace) -> TrialFailed:
    """The failure as it counts against the trial, whose processes have ended and whose scratch is gone.

    UserError where the disk is full all the same: the trial is to be run again when there is space.
    """
    if isinstance(failure, TrialFailed) and not _WORDS.search(str(failure)):
        return failure
    scratches = Path(tempfile.gettempdir())
    if files.is_filled(scratches):
        raise files.no_space(scratches) from failure
    return failure if isinstance(failure, TrialFailed) else TrialFailed("filled the disk that its scratch was on")
