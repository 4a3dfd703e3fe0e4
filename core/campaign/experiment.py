"""One experiment from its text to its row and, if kept, to the branch; and what a kill left behind, finished.

The order of writes is what makes a campaign resumable: candidate, its ref, trial rows, the experiment's row, the
branch, the work tree, the weights. Who proposes, and for how long, is the campaign's business.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from core.campaign.judge import AnotherTrial, Evidence, Policy, Ruling, champion_bpb, spread_of_seeds
from core.campaign.remeasure import Measurer, Reference, same_yardstick
from core.events import Judged, Notice, OnEvent, Proposed, Reviewing, TrialEnded, TrialProgress, TrialStarted
from core.records import (
    TRAINER,
    Audit,
    Budget,
    Constant,
    Experiment,
    Preset,
    Proposal,
    Trial,
    UserError,
)
from core.store import commit_message
from core.store.layout import CampaignFolder
from core.store.ledger import Ledger
from core.store.program import Program
from core.store.recovery import mended
from core.store.repository import GitFailed, Repo
from core.system.text import clean
from core.trainer.check import check, refusal
from core.trainer.constants import read_constants
from core.trainer.fingerprint import fingerprint
from core.trial.engine import Engine
from core.trial.spec import AuditSpec, TrialSpec

_TIDY_EVERY = 256  # experiments, each three loose objects and a ref
_SHOWN_LINES = 20


class Ratchet:
    """The writing side of an open campaign. Its caller holds the campaign's lock."""

    def __init__(
        self,
        folder: CampaignFolder,
        repo: Repo,
        ledger: Ledger,
        preset: Preset,
        *,
        engine: Engine,
        policy: Policy,
        program: Callable[[], Program],
        tell: OnEvent,
    ) -> None:
        self._folder = folder
        self._repo = repo
        self._ledger = ledger
        self._preset = preset
        self._engine = engine
        self._policy = policy
        self._program = program
        self._tell = tell
        self.measurer = Measurer(folder, repo, ledger, preset, engine=engine, tell=tell)
        self._reference = Reference(ledger, preset, self.measurer, tell)
        self._since = time.monotonic()  # where the last experiment's wall clock ended

    # Opening

    def reconcile(self) -> None:
        """Holds git against the ledger and finishes what was decided but not done.

        Raises UserError, naming the commits, where they contradict each other.
        """
        for told in mended(self._repo, self._ledger):
            self._tell(Notice(told))
        last, champion, head = self._ledger.last(), self._ledger.champion(), self._repo.head()
        if last is not None and (pinned := self._repo.experiment(last.number)) not in {None, last.commit}:
            raise UserError(
                f"refs/experiments/{last.number} is {pinned}, the ledger has {last.commit}; "
                f"mend it with: git update-ref refs/experiments/{last.number} {last.commit}"
            )
        if champion is not None and head != champion.commit:
            moving = last is not None and last.number == champion.number and head == champion.parent
            if not moving or head is None:
                raise self._elsewhere(head, champion.commit)
            self._repo.advance(head, champion.commit)
        elif head is None:
            raise UserError(
                f"the branch {self._repo.branch} is gone; mend it with: git branch {self._repo.branch} COMMIT"
            )
        if last is not None and champion is not None:
            self._finish(last, champion, quiet=True)
        if (beyond := self._repo.experiment(self._ledger.count() + 1)) is not None:
            raise UserError(
                f"refs/experiments/{self._ledger.count() + 1} is {beyond}, and the ledger ends before it: "
                "the ledger is older than the repository; restore both from one copy of the campaign's folder"
            )

    def pending(self) -> Experiment | None:
        """Finishes a candidate that was pinned and has no verdict yet; None if there is none."""
        number = self._ledger.count()
        champion = self._ledger.champion()
        commit = self._repo.experiment(number)
        if champion is None or commit is None:
            return None
        read = commit_message.parse(self._repo.message(commit))
        if read is None or read[1] != number or self._repo.parent(commit) != champion.commit:
            raise UserError(
                f"refs/experiments/{number} is {commit}, which is no candidate on the champion {champion.commit}; "
                f"mend it with: git update-ref -d refs/experiments/{number}"
            )
        if self._ledger.candidate_of_trials(number) not in {None, commit}:
            raise UserError(
                f"refs/experiments/{number} is {commit}, its recorded trials ran "
                f"{self._ledger.candidate_of_trials(number)}; "
                f"mend it with: git update-ref refs/experiments/{number} {self._ledger.candidate_of_trials(number)}"
            )
        return self._conclude(number, commit, champion, hypothesis=read[0], agent=read[2], resumed=True)

    # Experiments

    def baseline(self) -> Experiment:
        """Experiment 0: the branch's trainer as it stands. A failure is told as a UserError and leaves no row."""
        head, pinned, ran = self._repo.head(), self._repo.experiment(0), self._ledger.candidate_of_trials(0)
        assert head is not None
        if ran is not None and (head != ran or pinned != ran):
            raise self._elsewhere(head, ran)
        if pinned != head:
            self._repo.pin(0, head, pinned)
        try:
            check(self._repo.text(head))
        except UserError as error:
            raise UserError(
                f"the baseline can't run: {error}; mend {TRAINER} and commit it: git commit -am baseline"
            ) from None
        return self._conclude(0, head, None, hypothesis="baseline", agent="preset", resumed=False)

    def experiment(self, proposal: Proposal, champion: Experiment) -> Experiment:
        """Runs a proposal to its verdict. The caller has seen that it is no repeat.

        Before that, what it is to be held against is measured again if the device's speed moved: no experiment's time.
        """
        self._since += self._reference.refresh(champion)
        number = self._ledger.count()
        agent = commit_message.agent_name(proposal.agent)
        hypothesis = commit_message.canonical(proposal.hypothesis)
        commit = self._repo.candidate(champion.commit, proposal.text, commit_message.compose(hypothesis, number, agent))
        self._repo.pin(number, commit)
        return self._conclude(number, commit, champion, hypothesis=hypothesis, agent=agent, resumed=False)

    def restart_clock(self) -> None:
        """The next experiment's wall clock starts now: what came before (preparing data) was no experiment's."""
        self._since = time.monotonic()

    def settle(self, champion: Experiment, known: Collection[str], *, quiet: bool = False) -> None:
        """The work tree's trainer becomes the champion's, if its text is one of the blobs in `known`.

        A text that somebody edited stays, and is told of unless `quiet`.
        """
        try:
            told = self._repo.settle(champion.commit, known)
        except GitFailed as error:
            self._tell(Notice(f"the work tree was left as it is: {error}"))
            return
        if quiet:
            return
        show = f"git show {self._repo.branch}:{TRAINER}"
        if told == "edited":
            self._tell(Notice(f"{TRAINER} in the work tree was edited and stays so; the champion's is: {show}"))
        elif told == "elsewhere":
            self._tell(
                Notice(f"HEAD is not on {self._repo.branch}; the work tree stays as it is; the champion's: {show}")
            )

    # One candidate, from its ref to the end

    def _conclude(
        self, number: int, commit: str, champion: Experiment | None, *, hypothesis: str, agent: str, resumed: bool
    ) -> Experiment:
        trials = list(self._ledger.trials(number))
        earlier_seconds = sum(trial.wall_seconds for trial in trials)  # before the process that was killed
        self._tell(Proposed(number, hypothesis, agent, resumed or bool(trials)))
        text = self._repo.text(commit)
        baseline = self._ledger.experiment(0)
        evidence = Evidence(
            seeds=self._preset.seeds, trials=(), champion=champion, baseline=baseline,
            remeasured=self._reference.remeasured(),
        )  # fmt: skip
        ruling = self._without_trial(text, evidence) if not trials else None
        while ruling is None:
            answer = self._policy.decide(dataclasses.replace(evidence, trials=tuple(trials)))
            if isinstance(answer, AnotherTrial):
                trials.append(self._trial(number, len(trials), commit, text, answer.seed))
            else:
                ruling = answer
        assert champion is not None or ruling.verdict == "keep", "a baseline that failed has been told before"
        audit = None
        if ruling.verdict == "keep":
            ruling, audit = self._reviewed(number, text, ruling, trials, champion)
        if champion is not None and self._repo.head() != champion.commit:
            raise self._elsewhere(self._repo.head(), champion.commit)
        now = time.monotonic()
        experiment = Experiment(
            number=number,
            commit=commit,
            parent=commit if champion is None else champion.commit,
            hypothesis=hypothesis,
            agent=agent,
            verdict=ruling.verdict,
            reason=ruling.reason,
            val_bpb=ruling.val_bpb,
            champion_bpb=ruling.champion_bpb,
            spread=ruling.spread,
            fingerprint=fingerprint(text),
            wall_seconds=earlier_seconds + now - self._since,
            train_seconds=sum(trial.train_seconds for trial in trials),
            ended=datetime.now(UTC).isoformat(timespec="seconds"),
            trials=tuple(trials),
            audit=audit,
        )
        self._since = now
        if experiment.verdict == "keep":
            self._folder.secure_weights(number)
        self._ledger.record_experiment(experiment, _constants(text))
        if experiment.verdict == "keep" and champion is not None:
            self._repo.advance(champion.commit, commit)
        if experiment.verdict == "keep" or champion is None:
            self._finish(experiment, experiment, quiet=champion is None)
        else:
            self._finish(experiment, champion)
        self._tell(Judged(experiment))
        if number % _TIDY_EVERY == _TIDY_EVERY - 1:
            self._tidy()
        return experiment

    def _without_trial(self, text: str, evidence: Evidence) -> Ruling | None:
        """The verdict of a candidate's text that needs no process to fail."""
        champion = evidence.champion
        if champion is None:
            return None
        refused = refusal(text, self._repo.text(champion.commit), self._program().fixed)
        return None if refused is None else Ruling(
            verdict=refused.verdict, reason=refused.reason, val_bpb=None,
            champion_bpb=champion_bpb(evidence, evidence.seeds[0]), spread=spread_of_seeds(evidence),
        )  # fmt: skip

    def _trial(self, number: int, trial: int, commit: str, text: str, seed: int) -> Trial:
        self._tell(TrialStarted(number, trial, seed))
        spec = TrialSpec(
            trainer=text,
            preset=self._preset,
            budget=Budget(seconds=self._preset.budget_seconds),
            seed=seed,
            into=self._folder.trial(number, trial),
            trainer_path=self._folder.trainer(number),
        )
        record = self._engine.run_trial(spec, lambda progress: self._tell(TrialProgress(number, trial, progress)))
        if number == 0 and (record.verdict != "scored" or record.val_bpb is None or not math.isfinite(record.val_bpb)):
            raise self._no_baseline(record, trial)
        same_yardstick(self._ledger, record)
        self._ledger.record_trial(number, trial, commit, record)
        self._tell(TrialEnded(number, trial, record))
        return record

    def _reviewed(
        self, number: int, text: str, ruling: Ruling, trials: Sequence[Trial], champion: Experiment | None
    ) -> tuple[Ruling, Audit | None]:
        """What becomes of a keep: it stays one if a deep audit finds nothing wrong with the score that it rests on."""
        self._tell(Reviewing(number))
        place = _with_seed(trials, self._preset.seeds[0]) or 0
        held_against = None if champion is None else self._folder.trial_with(champion, trials[place].seed)
        found = self._engine.review(
            AuditSpec(
                trainer=text,
                preset=self._preset,
                trial=trials[place],
                folder=self._folder.trial(number, place),
                reference=held_against,
                noise_bpb=ruling.spread,
            )
        )
        if not found.fault:
            return ruling, found.audit
        if champion is None:
            raise UserError(
                f"the baseline's score does not hold: {found.fault}; start a new campaign with another trainer: "
                "autoresearch init DIR --trainer FILE"
            )
        failed = replace(ruling, verdict="invalid", reason=f"the audit: {found.fault}", val_bpb=None)
        return failed, found.audit

    def _finish(self, experiment: Experiment, champion: Experiment, *, quiet: bool = False) -> None:
        """All that follows from a recorded verdict once the branch is right. Can be done twice."""
        known = {
            blob
            for commit in (experiment.commit, experiment.parent, champion.commit)
            if (blob := self._repo.blob(commit)) is not None
        }
        if experiment.number == champion.number or self._repo.work_blob() in known:
            self.settle(champion, known, quiet=quiet)
        if experiment.number != champion.number:
            self._folder.drop_weights(experiment.number)

    def _tidy(self) -> None:
        try:
            self._repo.tidy()
        except GitFailed as error:
            self._tell(Notice(f"the repository was not packed: {error}"))

    def _no_baseline(self, record: Trial, trial: int) -> UserError:
        output = self._folder.trial(0, trial) / "output.txt"
        try:
            lines = clean(output.read_text(encoding="utf-8", errors="replace")).splitlines()[-_SHOWN_LINES:]
        except FileNotFoundError:
            lines = []
        shown = "".join(f"\n  {line}" for line in lines) or "\n  (no output)"
        return UserError(
            f"the baseline failed with seed {record.seed} ({record.verdict}: {record.reason}), so there is nothing to "
            f"improve on; mend {TRAINER} and commit it, or its surroundings, and run again. Its last output:{shown}"
        )

    def _elsewhere(self, head: str | None, expected: str) -> UserError:
        if head is None:
            return UserError(
                f"the branch {self._repo.branch} is gone; mend it with: git branch {self._repo.branch} {expected}"
            )
        return UserError(
            f"the branch {self._repo.branch} is at {head}, the ledger's champion is {expected}; a commit of your own "
            f"is tried as edits of the work tree: git reset --soft {expected}, then autoresearch try"
        )


def _with_seed(trials: Sequence[Trial], seed: int) -> int | None:
    return next((place for place, trial in enumerate(trials) if trial.seed == seed), None)


def _constants(text: str) -> dict[str, Constant]:
    try:
        return read_constants(text)
    except UserError:
        return {}
