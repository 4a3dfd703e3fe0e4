"""One experiment, from its text to its row in the ledger and, if it is kept, to the branch.

The order of writes is what makes a campaign resumable: candidate, its ref, trial rows, the experiment's row, the
branch, the work tree, the weights. `core.store.recovery` takes up what a kill cut off.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from core.campaign.evidence import Candidate, EvidenceBuilder, measured_for
from core.campaign.judge.base import AnotherTrial, Decision, Evidence, Noise
from core.campaign.judge.disturbed import marked
from core.campaign.remeasure import ReferenceScores, RemeasurementRunner
from core.campaign.schedule import PlannedTrial
from core.campaign.session import Session
from core.campaign.stopping import StopRules
from core.events import Judged, Notice, Proposed, Reviewing, TrialEnded, TrialStarted
from core.records import COMPARE, TRAINER, Audit, Budget, Constant, Experiment, Measurement, Proposal, Trial, UserError
from core.store import commit_message, trial_files
from core.store.recovery import PendingCandidate, branch_elsewhere, finish, pending
from core.store.repository import GitFailed
from core.system.text import one_line
from core.trainer.check import refusal
from core.trainer.constants import read_constants
from core.trainer.fingerprint import fingerprint, nodes
from core.trial.spec import AuditSpec, TrialSpec

_TIDY_EVERY = 256  # experiments, each three loose objects and a ref
_SHOWN_LINES = 20


class ExperimentRunner:
    """Runs experiments and records them. To be made when data is prepared: the first one's wall clock starts then."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._tell = session.tell
        self._campaign = session.campaign
        self._ledger, self._repo, self._files = self._campaign.ledger, self._campaign.repo, self._campaign.files
        self._preset = self._campaign.preset
        self._reference = ReferenceScores(session)
        self._again = RemeasurementRunner(session)
        self._stops = StopRules(session)
        self._builder = EvidenceBuilder.of(self._ledger, self._preset.seeds)
        self._since = time.monotonic()  # when the last experiment ended

    @property
    def noise(self) -> Noise | None:
        """Pooled over the trials so far."""
        return self._builder.evidence((), ()).noise

    def baseline(self) -> Experiment:
        """Experiment 0: the branch's trainer, which can be compiled. A failure is a UserError and leaves no row."""
        head, pinned, ran = self._repo.head(), self._repo.experiment(0), self._ledger.candidate_of_trials(0)
        assert head is not None
        if ran is not None and (head != ran or pinned != ran):
            raise branch_elsewhere(self._repo, head, ran)
        if pinned != head:
            self._repo.pin(0, head, pinned)
        return self._conclude(PendingCandidate(number=0, commit=head, hypothesis="baseline", agent="preset"), None)

    def resume(self) -> Experiment | None:
        """Finishes the candidate that was left without a verdict; None if there is none."""
        champion = self._ledger.champion()
        candidate = None if champion is None else pending(self._campaign, champion)
        if candidate is None or champion is None:
            return None
        if not self._ledger.trials(candidate.number):
            self._since += self._reference.refresh(champion)
        return self._conclude(candidate, champion, resumed=True)

    def experiment(self, proposal: Proposal, champion: Experiment) -> Experiment:
        """Runs a proposal to its verdict. The caller has seen that it is no repeat.

        First, the scores that it is compared with are measured again if the device's speed moved. That time counts for
        no experiment.
        """
        self._since += self._reference.refresh(champion)
        return self._conclude(self.pin(proposal, champion), champion)

    def pin(self, proposal: Proposal, champion: Experiment) -> PendingCandidate:
        """Commits and pins a proposal, which `resume` tries later, also in another process."""
        number = self._ledger.count()
        agent, hypothesis = one_line(proposal.agent), commit_message.canonical(proposal.hypothesis)
        message = commit_message.compose(hypothesis, number, agent)
        commit = self._repo.candidate(champion.commit, proposal.text, message)
        self._repo.pin(number, commit)
        return PendingCandidate(number=number, commit=commit, hypothesis=hypothesis, agent=agent)

    def _conclude(
        self, candidate: PendingCandidate, champion: Experiment | None, *, resumed: bool = False
    ) -> Experiment:
        """From a pinned candidate to its row, the branch and the work tree."""
        number, commit = candidate.number, candidate.commit
        trials = list(self._ledger.trials(number))
        earlier_seconds = sum(trial.wall_seconds for trial in trials)  # before the process that was killed
        self._tell(Proposed(number, candidate.hypothesis, candidate.agent, resumed or bool(trials)))
        text = self._repo.text(commit)
        measured = measured_for(self._ledger, number)
        limits = self._campaign.program.limits
        champion_text = None if champion is None else self._repo.text(champion.commit)
        about = Candidate(nodes(text), None if champion_text is None else nodes(champion_text), limits)
        evidence = self._builder.evidence(trials, measured, about)
        decision = self._without_trial(text, evidence) if not trials else None
        while decision is None:
            evidence = self._builder.evidence(trials, measured, about)
            answer = self._session.policy.decide(evidence)
            if isinstance(answer, Decision):
                decision = answer
                break
            if answer.why:
                self._tell(Notice(answer.why))
            if answer.of == "candidate":
                trials.append(self._trial(number, commit, text, answer.seed, evidence))
            else:
                measured.append(self._measured_again(number, answer, evidence))
        assert champion is not None or decision.verdict == "keep", "a baseline that failed has raised before"
        audit = None
        if decision.verdict == "keep":
            decision, audit = self._reviewed(number, text, decision, trials, champion)
        if champion is not None and self._repo.head() != champion.commit:
            raise branch_elsewhere(self._repo, self._repo.head(), champion.commit)
        now = time.monotonic()
        experiment = Experiment(
            number=number,
            commit=commit,
            parent=commit if champion is None else champion.commit,
            hypothesis=candidate.hypothesis,
            agent=candidate.agent,
            verdict=decision.verdict,
            reason=decision.reason,
            **decision.numbers(),
            nodes=about.nodes,
            limits=limits.to_record(),
            fingerprint=fingerprint(text),
            wall_seconds=earlier_seconds + now - self._since,
            train_seconds=sum(trial.train_seconds for trial in trials),
            ended=datetime.now(UTC).isoformat(timespec="seconds"),
            trials=tuple(trials),
            audit=audit,
        )
        self._since = now
        if experiment.verdict == "keep":
            self._files.secure_weights(number)
        self._ledger.record_experiment(experiment, _constants(text))
        self._builder.add(experiment, measured)
        if experiment.verdict == "keep" and champion is not None:
            self._repo.advance(champion.commit, commit)
        best = experiment if champion is None or experiment.verdict == "keep" else champion
        finish(self._campaign, experiment, best, self._tell, quiet=champion is None)
        self._tell(Judged(experiment))
        if number % _TIDY_EVERY == _TIDY_EVERY - 1:
            try:
                self._repo.tidy()
            except GitFailed as error:
                self._tell(Notice(f"the repository was not packed: {error}"))
        return experiment

    def _measured_again(self, number: int, wanted: AnotherTrial, evidence: Evidence) -> Measurement:
        """A trial of champion or baseline that the verdict of experiment `number` rests on, recorded."""
        whose = self._ledger.champion() if wanted.of == "champion" else self._ledger.experiment(0)
        assert whose is not None
        return self._again.one(COMPARE, number, PlannedTrial(wanted.of, whose, wanted.seed), 0, 1, evidence=evidence)

    def _without_trial(self, text: str, evidence: Evidence) -> Decision | None:
        """The verdict of a text that is refused without a trial; None if trials decide."""
        champion = evidence.champion
        if champion is None:
            return None
        refused = refusal(text, self._repo.text(champion.commit), self._campaign.program.fixed)
        return None if refused is None else self._session.policy.refused(evidence, refused.verdict, refused.reason)

    def _trial(self, number: int, commit: str, text: str, seed: int, evidence: Evidence) -> Trial:
        """The candidate's next trial, recorded with what disturbed it."""
        self._tell(TrialStarted(number, seed))
        trial = len(evidence.trials)
        spec = TrialSpec(
            trainer=text,
            preset=self._preset,
            budget=Budget(seconds=self._preset.budget_seconds),
            seed=seed,
            into=self._files.trial(number, trial),
            trainer_path=self._files.trainer(number),
            stop=self._stops.rule(commit, seed, evidence),
        )
        record = self._session.engine.run_trial(spec, self._tell)
        if number == 0 and (record.verdict != "scored" or record.val_bpb is None or not math.isfinite(record.val_bpb)):
            raise self._no_baseline(record, trial)
        record = marked(record, evidence)
        self._ledger.record_yardsticks(record)
        self._ledger.record_device_kind(record)
        self._ledger.record_trial(number, trial, commit, record)
        self._tell(TrialEnded())
        return record

    def _reviewed(
        self, number: int, text: str, decision: Decision, trials: Sequence[Trial], champion: Experiment | None
    ) -> tuple[Decision, Audit | None]:
        """The decision to keep, or `invalid` where a deep audit finds a fault in the score. With the audit."""
        self._tell(Reviewing(number))
        first = self._preset.seeds[0]
        place = max((place for place, trial in enumerate(trials) if trial.seed == first), default=0)
        found = self._session.engine.review(
            AuditSpec(
                trainer=text,
                preset=self._preset,
                trial=trials[place],
                folder=self._files.trial(number, place),
                reference=None if champion is None else self._files.trial_with(champion, trials[place].seed),
                noise_bpb=decision.spread,
            )
        )
        if not found.fault:
            return decision, found.audit
        if champion is None:
            raise UserError(
                f"the baseline's score does not hold: {found.fault}; start a new campaign with another trainer: "
                "autoresearch init DIR --trainer FILE"
            )
        return replace(decision, verdict="invalid", reason=f"the audit: {found.fault}", val_bpb=None), found.audit

    def _no_baseline(self, record: Trial, trial: int) -> UserError:
        lines = trial_files.printed(self._files.trial(0, trial)).splitlines()[-_SHOWN_LINES:]
        shown = "".join(f"\n  {line}" for line in lines) or "\n  (no output)"
        return UserError(
            f"the baseline failed with seed {record.seed} ({record.verdict}: {record.reason}), so there is nothing to "
            f"improve on; fix {TRAINER} and commit it, or what it depends on, and run again. Its last output:{shown}"
        )


def _constants(text: str) -> dict[str, Constant]:
    try:
        return read_constants(text)
    except UserError:
        return {}
