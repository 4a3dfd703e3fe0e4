"""Where a campaign's trials run. `Local` is this machine; a cluster would be another class with the same methods."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from core.events import OnEvent, OnProgress, Preparing
from core.records import Budget, Facts, Preset, Score, Trial

if TYPE_CHECKING:
    from core.data import Dataset
    from core.trial.audit import Finding


class Engine(Protocol):
    def prepare(self, preset: Preset, tell: OnEvent) -> None:
        """What trials need and only has to be made once, before anything is timed."""
        ...

    def run_trial(
        self,
        *,
        trainer: Path,
        preset: Preset,
        budget: Budget,
        seed: int,
        into: Path,
        on_progress: OnProgress,
        test: bool = False,
    ) -> Trial:
        """One trial, its files left in `into`. Whatever the trainer does ends in the record, not in an exception.

        With `test` it is scored on the test split too, which a confirmation alone asks for.
        """
        ...

    def score(self, *, trainer: Path, preset: Preset, weights: Path, facts: Facts) -> Score:
        """Scores weights again in a fresh process. UserError if they can't be restored."""
        ...

    def review(
        self,
        *,
        trainer: Path,
        preset: Preset,
        trial: Trial,
        folder: Path,
        reference: Path | None,
        noise_bpb: float | None,
    ) -> Finding:
        """Audits a trial deeply, whose files are in `folder`; `reference` is that of the one it is held against."""
        ...


class Local:
    """Trials under this machine's supervisor, with the corpus prepared here."""

    def __init__(self) -> None:
        self._dataset: Dataset | None = None

    def prepare(self, preset: Preset, tell: OnEvent) -> None:
        # Imported here: reading a campaign (`status`, `log`) needs none of it.
        from core.data import prepare

        if self._dataset is None:
            self._dataset = prepare(
                preset.corpus,
                preset.vocabulary,
                on_progress=lambda stage, done, total: tell(Preparing(stage, done, total)),
            )

    def run_trial(
        self,
        *,
        trainer: Path,
        preset: Preset,
        budget: Budget,
        seed: int,
        into: Path,
        on_progress: OnProgress,
        test: bool = False,
    ) -> Trial:
        from core.trial.supervisor import TrialSpec, run_trial

        assert self._dataset is not None, "prepare comes first"
        spec = TrialSpec(
            trainer=trainer, preset=preset, budget=budget, seed=seed, dataset=self._dataset, into=into, test=test
        )
        return run_trial(spec, on_progress=on_progress)

    def score(self, *, trainer: Path, preset: Preset, weights: Path, facts: Facts) -> Score:
        from core.trial.model import open_model

        assert self._dataset is not None, "prepare comes first"
        with open_model(trainer, weights, facts, preset) as model:
            return model.score(self._dataset.scored("val", preset.score_bytes))

    def review(
        self,
        *,
        trainer: Path,
        preset: Preset,
        trial: Trial,
        folder: Path,
        reference: Path | None,
        noise_bpb: float | None,
    ) -> Finding:
        from core.trial.audit_deep import ReviewSpec, review

        assert self._dataset is not None, "prepare comes first"
        return review(
            ReviewSpec(
                trainer=trainer,
                preset=preset,
                trial=trial,
                folder=folder,
                dataset=self._dataset,
                reference=reference,
                noise_bpb=noise_bpb,
            )
        )
