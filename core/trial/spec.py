"""What a trial is made of, and what it leaves to be audited."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from core.records import FACTS, WEIGHTS, Budget, Facts, Preset, Trial, UserError, from_json
from core.system.files import explained, parse_json, replacing

if TYPE_CHECKING:
    from core.trial.stop_rule import StopRule


@dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """One trial to run.

    `into`, emptied before, receives output.txt, curve.jsonl and facts.json; of a score also weights.safetensors and
    losses.npy, the nats of each scored token in the order of the text, float32 [N]; with `test` also test-losses.npy.
    """

    trainer: str  # the text of train.py
    preset: Preset
    budget: Budget
    seed: int
    into: Path
    trainer_path: Path | None = None  # where the trainer is kept as a file, durable; None: nowhere
    test: bool = False  # score on the test split too: for confirmations alone
    stop: StopRule | None = None  # ends it early where it can hardly win; None: it runs to its end

    def keep_trainer(self) -> None:
        """Writes the trainer to `trainer_path`."""
        if (path := self.trainer_path) is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path, through=path.parent) as file:
                file.write(encoded(self.trainer))


@dataclass(frozen=True, kw_only=True)
class AuditSpec:
    """A scored trial to audit deeply: its record, its trainer, and the folder with its weights, facts and losses."""

    trainer: str
    preset: Preset
    trial: Trial
    folder: Path
    reference: Path | None = None  # the folder of the trial that it is compared with, on the same seed
    noise_bpb: float | None = None  # of the campaign; None: not known
    test: bool = False  # audit the losses on the test split too

    @property
    def weights(self) -> Path:
        return self.folder / WEIGHTS


def encoded(trainer: str) -> bytes:
    """A trainer's file: UTF-8, line ends as they are.

    What can't be encoded is escaped: the trial then fails on it, not the supervisor.
    """
    return trainer.encode("utf-8", "backslashreplace")


def read_facts(folder: Path) -> Facts:
    """What a trial left for `restore`. UserError if it is missing or damaged."""
    path = folder / FACTS
    try:
        return from_json(Facts, parse_json(path.read_bytes()))
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing: a trial that scored leaves it, so restore it from a copy of its folder"
        ) from None
    except OSError as error:
        raise explained(error, path) from error
    except ValueError as error:
        raise UserError(f"{path} is damaged: restore it from a copy of its folder") from error
