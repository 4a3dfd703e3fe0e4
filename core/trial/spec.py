"""What a trial is made of, what it leaves to be audited, and how a trainer's text becomes a file for its processes."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from core.records import FACTS, TRAINER, WEIGHTS, Budget, Facts, Preset, Trial, UserError, from_json
from core.system.files import replacing


@dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """One trial to run.

    `into`, emptied before, receives output.txt, curve.jsonl and facts.json; of a score also weights.safetensors and
    losses.npy, the nats of each scored token in the order of the text, float32 [N].
    """

    trainer: str  # the text of train.py
    preset: Preset
    budget: Budget
    seed: int
    into: Path
    trainer_path: Path | None = None  # where the trainer's file is written and stays; None: somewhere temporary
    test: bool = False  # score on the test split too: for confirmations alone


@dataclass(frozen=True, kw_only=True)
class AuditSpec:
    """A scored trial to audit deeply: its record, its trainer, and the folder with its weights, facts and losses."""

    trainer: str
    preset: Preset
    trial: Trial
    folder: Path
    reference: Path | None = None  # the folder of the trial that it is compared with, on the same seed
    noise_bpb: float | None = None  # of the campaign; None: not known

    @property
    def weights(self) -> Path:
        return self.folder / WEIGHTS


@contextlib.contextmanager
def trainer_file(text: str, path: Path | None = None) -> Iterator[Path]:
    """The trainer's text as a file: at `path`, where it stays, or in a folder that is deleted on leaving.

    UTF-8, line ends as they are. What can't be encoded is escaped: the trial then fails on it, not the supervisor.
    """
    with contextlib.ExitStack() as stack:
        if path is None:
            made = tempfile.TemporaryDirectory(prefix="autoresearch-", ignore_cleanup_errors=True)
            path = Path(stack.enter_context(made)).resolve() / TRAINER
        path = path.absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, through=path.parent) as file:
            file.write(text.encode("utf-8", "backslashreplace"))
        yield path


def read_facts(folder: Path) -> Facts:
    """What a trial left for `restore`. UserError if it is missing or damaged."""
    path = folder / FACTS
    try:
        return from_json(Facts, json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing: only what was kept has its weights. `autoresearch log` shows which are"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged: restore it from a copy of its folder") from error
