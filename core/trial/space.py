"""A trial whose scratch found no space: whether that is its own doing, or the disk's, which no verdict may rest on."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from core import disk
from core.trial.process import TrialFailed
from core.trial.slots import NoRoom

# As Python, NumPy and safetensors tell it; a mapped file that the disk has no block for ends a process with SIGBUS.
_WORDS = re.compile(r"No space left|Disk quota exceeded|Errno 28\b|os error 28\b|ended by SIGBUS|while scored: OSError")


def judge(failure: TrialFailed | NoRoom) -> TrialFailed:
    """The failure as it counts against the trial, whose processes have ended and whose scratch is gone.

    UserError where the disk is full all the same: the trial is to be run again when there is space.
    """
    if isinstance(failure, TrialFailed) and not _WORDS.search(str(failure)):
        return failure
    scratches = Path(tempfile.gettempdir())
    if disk.is_filled(scratches):
        raise disk.no_space(scratches) from failure
    return failure if isinstance(failure, TrialFailed) else TrialFailed("filled the disk that its scratch was on")
