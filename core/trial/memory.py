"""A trainer that ran out of memory: whether it gets a second attempt, with half as many rows on the device at once.

The attempt itself is a whole new one: fresh processes, the same seed, a clock that starts anew, the same batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from backends.base import Backend
from core.trial.process import TrialFailed

if TYPE_CHECKING:
    from core.trial.training import Course

OUTPUT, FIRST_OUTPUT = "output.txt", "output-out-of-memory.txt"
_LAST_WORDS = 2000  # characters of output: a framework that takes the process down with it says why there


@dataclass(frozen=True, kw_only=True)
class Again:
    """What the second attempt is held to."""

    device_rows: int  # granted at most
    shape: tuple[int, int] | None  # rows x length of the first attempt's batches, if it came so far
    note: str  # for the record


def again(failure: TrialFailed, course: Course, backend: Backend, into: Path) -> Again | None:
    """The terms of a second attempt; None where memory was not what failed, or no fewer rows can be granted.

    `into` holds the first attempt's output, which stays under another name.
    """
    asked = course.device_rows
    if asked is None or asked < 2 or course.stopped is not None or failure.verdict != "crash":
        return None
    said, output = str(failure), into / OUTPUT
    if said.startswith("ended ") and output.exists():
        said += output.read_text(encoding="utf-8", errors="replace")[-_LAST_WORDS:]
    if not backend.out_of_memory(said):
        return None
    if output.exists():
        output.replace(into / FIRST_OUTPUT)
    shape = None if course.rows is None or course.length is None else (course.rows, course.length)
    granted = asked // 2
    when = "before the first step" if course.started is None else f"at step {course.step}"
    note = f"out of memory {when} with {asked} rows on the device at once; trained again with {granted}"
    if shape is not None:
        note += f", the same {shape[0]} x {shape[1]} tokens a step"
    return Again(device_rows=granted, shape=shape, note=note)
