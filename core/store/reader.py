"""A campaign's history as agents see it: read from the ledger and git on demand, changing neither."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from core.records import Constant, Experiment, Preset, UserError
from core.store.layout import Folder
from core.store.ledger import Ledger
from core.store.program import Program
from core.store.repository import Repo
from core.trainer.fingerprint import fingerprint


class LedgerHistory:
    """`agents.base.History` over an open campaign; good until the next experiment is recorded."""

    def __init__(self, folder: Folder, ledger: Ledger, repo: Repo, preset: Preset, program: Program) -> None:
        self.program = program
        self.preset = preset
        self._folder = folder
        self._ledger = ledger
        self._repo = repo

    @cached_property
    def champion(self) -> Experiment:
        champion = self._ledger.champion()
        assert champion is not None, "an agent is asked after the baseline"
        return champion

    @cached_property
    def champion_text(self) -> str:
        return self._repo.text(self.champion.commit)

    def __len__(self) -> int:
        return self._ledger.count()

    def verdicts(self) -> dict[str, int]:
        return self._ledger.verdicts()

    def recent(self, count: int) -> list[Experiment]:
        return self._ledger.experiments(max(0, len(self) - count), trials=False)

    def best(self, count: int) -> list[Experiment]:
        return self._ledger.best(count)

    def experiment(self, number: int) -> Experiment:
        return known(self._ledger, number)

    def text(self, number: int) -> str:
        return self._repo.text(self.experiment(number).commit)

    def diff(self, number: int) -> str:
        experiment = self.experiment(number)
        return self._repo.diff(experiment.parent, experiment.commit)

    def folder(self, number: int) -> Path:
        return self._folder.experiment(number)

    def constants(self, number: int) -> dict[str, Constant]:
        return self._ledger.constants(number)

    def tried(self, text: str) -> bool:
        return self._ledger.knows(fingerprint(text))

    def repeat_of(self, text: str) -> Experiment | None:
        return self._ledger.decided(fingerprint(text))


def known(ledger: Ledger, number: int) -> Experiment:
    """The experiment, or a UserError that says which there are."""
    experiment = ledger.experiment(number)
    if experiment is None:
        count = ledger.count()
        there = f"there are 0 to {count - 1}" if count else "there are none yet"
        raise UserError(f"there is no experiment {number}; {there}")
    return experiment
