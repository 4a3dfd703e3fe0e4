"""Where a campaign's trials run. `Local` is this machine; a cluster would be another class with the same methods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from core.events import Notice, OnEvent, OnProgress, Preparing
from core.records import Preset, Score, Trial
from core.trial.spec import AuditSpec, TrialSpec, read_facts

if TYPE_CHECKING:
    from core.data import Dataset
    from core.trial.audit import AuditResult


class Engine(Protocol):
    def prepare(self, preset: Preset, tell: OnEvent) -> None:
        """What trials need and only has to be made once, before anything is timed."""
        ...

    def run_trial(self, spec: TrialSpec, on_progress: OnProgress = ...) -> Trial:
        """One trial. Whatever the trainer does ends in the record, not in an exception."""
        ...

    def score(self, spec: AuditSpec) -> Score:
        """Scores a trial's weights again in a fresh process. UserError if they can't be restored."""
        ...

    def review(self, spec: AuditSpec) -> AuditResult:
        """Audits a trial deeply. UserError if a file is missing."""
        ...


class Local:
    """Trials under this machine's supervisor, with the corpus prepared here."""

    def __init__(self) -> None:
        self._datasets: dict[tuple[str, int], Dataset] = {}

    # Imported in the methods: reading a campaign (`status`, `log`) needs none of it.

    def prepare(self, preset: Preset, tell: OnEvent) -> None:
        from core.data import prepare
        from core.trial.bytecode import compile_missing
        from core.trial.probe import require_before_data

        def on_stage(stage: str, done: int, total: int) -> None:
            tell(Preparing(stage, done, total))

        if (text := (preset.corpus, preset.vocabulary)) not in self._datasets:
            require_before_data(preset)
            self._datasets[text] = prepare(preset.corpus, preset.vocabulary, on_progress=on_stage)
            compile_missing(preset.backend, on_stage)
            for warning in self.dataset(preset).warnings(preset.score_bytes):
                tell(Notice(f"warning: {warning}"))

    def dataset(self, preset: Preset) -> Dataset:
        """The preset's corpus, which was prepared."""
        return self._datasets[preset.corpus, preset.vocabulary]

    def run_trial(self, spec: TrialSpec, on_progress: OnProgress = lambda progress: None) -> Trial:
        from core.trial.supervisor import run_trial

        return run_trial(spec, self.dataset(spec.preset), on_progress)

    def score(self, spec: AuditSpec) -> Score:
        from core.trial.model import open_model

        with open_model(spec.trainer, spec.weights, read_facts(spec.folder), spec.preset) as model:
            return model.score(self.dataset(spec.preset).scored("val", spec.preset.score_bytes))

    def review(self, spec: AuditSpec) -> AuditResult:
        from core.trial.audit_deep import review

        return review(spec, self.dataset(spec.preset))
