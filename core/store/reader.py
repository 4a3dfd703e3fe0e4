"""Reads an existing campaign: its preset, program, experiments, trainers, diffs and folders. Changes nothing of it."""

from __future__ import annotations

import json
import weakref
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from core.records import VAL_BPB, Constant, Experiment, Metric, UserError, from_json
from core.store import program as programs
from core.store.layout import BRANCH, CampaignFolder, existing, read_preset
from core.store.ledger import Ledger
from core.store.program import Program
from core.system.text import valid
from core.trainer.fingerprint import fingerprint

if TYPE_CHECKING:
    from core.store.repository import Repo

FIRST_POLICY = "greedy 1"  # of campaigns from before the policy was a fact


class CampaignReader:
    """An open campaign, also as agents see it (`agents.base.History`). Each answer is read when it is asked for.

    Also a context manager; without one it is closed when nobody refers to it any more.
    """

    def __init__(self, files: CampaignFolder) -> None:
        self.files = files
        self.root = files.root
        self.ledger = Ledger.open(files.ledger)
        self._close = weakref.finalize(self, self.ledger.close)
        facts = self.ledger.facts()
        self.branch = BRANCH + facts["tag"]
        self.preset = read_preset(files, facts)
        self.policy = facts.get("policy", FIRST_POLICY)  # the judge's name and version
        self.metric = from_json(Metric, json.loads(facts["metric"])) if "metric" in facts else VAL_BPB

    @classmethod
    def open(cls, root: str | Path) -> Self:
        """The campaign in `root`. Raises UserError, with the command that makes one, where none is."""
        return cls(existing(root))

    def close(self) -> None:
        """Ends git's helper process and closes the ledger. Can be called twice."""
        if "repo" in self.__dict__:
            self.repo.close()
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def name(self) -> str:
        """The folder's name, to be shown; what is no UTF-8 in it is replaced."""
        return valid(self.root.name)

    @cached_property
    def repo(self) -> Repo:
        # GitPython takes a quarter of a second to import: what reads only the ledger does without.
        from core.store.repository import Repo

        return Repo(self.root, self.branch)

    @cached_property
    def program(self) -> Program:
        """`program.md` as it was last read. Raises UserError for front matter that can't be read."""
        return programs.read(self.files.program)

    def read_program(self) -> None:
        """Reads `program.md` anew. Where that raises UserError, `program` stays as it was."""
        self.program = programs.read(self.files.program)

    def __len__(self) -> int:
        return self.ledger.count()

    def verdicts(self) -> dict[str, int]:
        return self.ledger.verdicts()

    @property
    def champion(self) -> Experiment:
        """The best one verified, with the newest belief about its score. UserError before the baseline has run."""
        champion = self.ledger.champion()
        if champion is None:
            raise UserError(f"{self.root} has no baseline yet; run it with: autoresearch run {self.root}")
        return self.ledger.believed(champion)

    @property
    def believes(self) -> bool:
        """Whether its scores are beliefs, each with a deviation; without them each is that of one trial."""
        baseline = self.ledger.experiment(0)
        return baseline is not None and baseline.deviation is not None

    @property
    def champion_text(self) -> str:
        return self.trainer_text(self.champion.commit)

    def experiment(self, number: int) -> Experiment:
        """The experiment as it was recorded. Raises UserError for a number that isn't there."""
        experiment = self.ledger.experiment(number)
        if experiment is None:
            count = len(self)
            there = f"there are 0 to {count - 1}" if count else "there are none yet"
            raise UserError(f"there is no experiment {number}; {there}")
        return experiment

    def experiments(self, first: int = 0, stop: int | None = None, *, trials: bool = True) -> list[Experiment]:
        """Experiments first <= n < stop, the baseline being 0; without `trials` at a third of the cost."""
        return self.ledger.experiments(first, stop, trials=trials)

    def recent(self, count: int) -> list[Experiment]:
        return self.experiments(max(0, len(self) - count), trials=False)

    def best(self, count: int) -> list[Experiment]:
        return self.ledger.best(count)

    def constants(self, number: int) -> dict[str, Constant]:
        return self.ledger.constants(number)

    def tried(self, text: str) -> bool:
        return self.ledger.knows(fingerprint(text))

    def repeat_of(self, text: str) -> Experiment | None:
        return self.ledger.decided(fingerprint(text))

    def text(self, number: int) -> str:
        return self.trainer_text(self.experiment(number).commit)

    def trainer_text(self, commit: str) -> str:
        return self.repo.text(commit)

    def diff(self, number: int) -> str:
        """What the experiment changed in the champion of its time, as a unified diff; empty for the baseline."""
        experiment = self.experiment(number)
        return self.repo.diff(experiment.parent, experiment.commit)

    def folder(self, number: int) -> Path:
        """One subfolder a trial (0, 1, ...): output.txt, curve.jsonl, facts.json; with weights where it was kept."""
        return self.files.experiment(number)
