"""A campaign: makes or opens one, runs an agent or a single edit on it, confirms and verifies it.

The loop and its limits live here; one experiment is in `core.campaign.experiment`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

import presets
from core.agents.base import Agent
from core.agents.llm import transcript
from core.campaign.agent_context import CampaignContext
from core.campaign.judge.base import Noise, Policy
from core.campaign.judge.limits import are_held
from core.campaign.judge.outlook import PAIRS
from core.campaign.judge.registry import DEFAULT, fact_of, named
from core.campaign.session import Session
from core.campaign.status import Status, status_of
from core.events import Accepted, Confirming, Event, Notice, OnEvent, Outlook, Repeat, Stopped
from core.records import Experiment, Preset, Proposal, UserError
from core.store import activity
from core.store import program as programs
from core.store.layout import BRANCH, CampaignFolder, existing, refreeze
from core.store.layout import create as create_folder
from core.store.reader import CampaignReader
from core.system.files import disk_full_as_user_error
from core.trainer.check import check, refusal
from core.trainer.constants import read_constants
from core.trainer.fingerprint import fingerprint
from core.trainer.reference import reference_trainer
from core.trial.engine import Engine, Local

if TYPE_CHECKING:
    from core.campaign.ablate import Ablation
    from core.campaign.confirm import Confirmation
    from core.campaign.experiment import ExperimentRunner
    from core.campaign.transfer import Transfer
    from core.campaign.verify import Check

REPEATS_IN_A_ROW = 50


class Campaign(CampaignReader):
    """An open campaign that can also go on. Reading needs no lock, and only one process at a time writes."""

    def __init__(self, files: CampaignFolder, *, engine: Engine | None = None, policy: Policy | None = None) -> None:
        super().__init__(files)
        self._engine = engine or Local()
        self._given_policy = policy

    @classmethod
    def create(
        cls,
        root: str | Path,
        preset: Preset,
        *,
        tag: str | None = None,
        program: str | None = None,
        trainer: str | None = None,
        engine: Engine | None = None,
        policy: Policy | None = None,
    ) -> Self:
        """A new campaign in a new or empty folder, opened.

        `tag` names the branch (default: today's date), `program` and `trainer` are texts: default the program that
        comes with autoresearch, and the backend's reference trainer filled from the preset. A given trainer is taken
        as it is. Raises UserError for a folder with anything in it and for a trainer that can't be parsed.
        """
        text = reference_trainer(preset) if trainer is None else trainer
        check(text)
        prose = presets.program() if program is None else program
        programs.parse(prose)
        folder = create_folder(root, preset, tag, prose, text, fact_of(policy or DEFAULT))
        return cls(folder, engine=engine, policy=policy)

    @classmethod
    def open(cls, root: str | Path, *, engine: Engine | None = None, policy: Policy | None = None) -> Self:
        """The campaign in `root`. Raises UserError, with the command that makes one, where none is."""
        return cls(existing(root), engine=engine, policy=policy)

    @classmethod
    def refreeze(cls, root: str | Path, preset: Preset) -> bool:
        """Freezes a campaign that has no experiment yet with another preset. Recorded trials of its baseline go.

        The baseline's trainer becomes the new preset's, where it is the old one's as it came. Returns whether it did.
        UserError where an experiment is recorded.
        """
        from core.store.lock import only_writer
        from core.store.repository import blob_id

        with cls.open(root) as campaign, only_writer(campaign.files.state, lambda: activity.holder(campaign.files)):
            if len(campaign):
                raise UserError(f"{campaign.root} has experiments, so its preset stays")
            repo, head = campaign.repo, campaign.repo.head()
            old, new = reference_trainer(campaign.preset), reference_trainer(preset)
            follows = head is not None and repo.text(head) in (old, new)
            if head is not None and follows and repo.text(head) != new:
                commit = repo.candidate(head, new, f"Campaign: preset {preset.name}")
                repo.advance(head, commit)
                repo.sync_worktree(commit, {blob_id(old.encode())})
            tag = campaign.branch.removeprefix(BRANCH)
            campaign.close()
            refreeze(campaign.files, preset, tag, campaign.policy)
        return follows

    @property
    def _policy(self) -> Policy:
        """The judge. UserError where the ledger names one that this version doesn't have, which can still be read."""
        return self._given_policy or named(self.policy)

    # Reading

    def status(self) -> Status:
        """Sums by the ledger's SQL: nearly the same cost at ten experiments and at ten thousand."""
        return status_of(self, self.confirmation())

    def confirmation(self) -> Confirmation | None:
        """The last confirmation's result; None if there was none. Its champion may not be the present one."""
        recorded = self.ledger.measurements("confirm")
        if not recorded:
            return None
        from core.campaign.confirm import conclude

        baseline, champion = (self.ledger.believed(self.experiment(number)) for number in (0, recorded[-1].series))
        return conclude(baseline, champion, recorded)

    def transcripts(self) -> list[Path]:
        """A file for each proposal that a model worked on, the newest last, experiment or not."""
        return sorted((self.files.agents / transcript.FOLDER).glob("*.md"))

    def verify(self, on_event: OnEvent | None = None, *, scores: bool = True) -> Iterator[Check]:
        """Checks the campaign's records, refs and hashes, and with `scores` measures its champions' scores again."""
        from core.campaign import verify

        try:
            yield from verify.of_records(self, self._policy)
            if scores:
                self._engine.prepare(self.preset, on_event or (lambda event: None))
                yield from verify.of_scores(self, self._engine)
        finally:
            self.repo.close()

    # Writing, one process at a time

    def run(
        self,
        agent: Agent,
        *,
        experiments: int | None = None,
        hours: float | None = None,
        full_trials: bool = False,
        on_event: OnEvent | None = None,
    ) -> None:
        """Tries what the agent proposes and keeps what wins, until a limit or until it has nothing more to propose.

        The baseline comes first where it is missing, and a candidate that a kill left behind is finished and counts.
        `experiments` limits the rows that this call adds beside the baseline; after `hours` it starts nothing new. Of
        these limits and program.md's the lower ones hold. With `full_trials`, no trial is stopped early.
        KeyboardInterrupt ends the trial and passes through: the candidate is pending then, and the next run resumes it.
        """
        from core.store.recovery import recover

        begun = time.monotonic()
        with self._writing("run", on_event, full_trials=full_trials) as session:
            most = min(_or_infinite(experiments), _or_infinite(self.program.experiments))
            seconds = 3600 * min(_or_infinite(hours), _or_infinite(self.program.hours))
            recover(self, session.tell)
            self._check_base()
            try:
                # Whatever the agent lacks ends the run here, before data is prepared and the baseline runs.
                agent.begin(CampaignContext(session, begun + seconds))
                runner = self._prepared(session)
                champion = self.ledger.champion() or runner.baseline()
                if self.repo.work_blob() not in {None, self.repo.blob(champion.commit)}:
                    edited = "train.py in the work tree has edits of its own"
                    session.tell(Notice(f"{edited}; this run neither uses nor changes them"))
                left = begun + seconds - time.monotonic()
                for said in self._foreword(champion, runner.noise, most, left):
                    session.tell(Outlook(said))
                session.tell(Stopped(self._loop(agent, runner, session.tell, most, begun, seconds)))
            finally:
                agent.end()

    def _foreword(self, champion: Experiment, noise: Noise | None, most: float, seconds: float) -> list[str]:
        """What this run can show, and how program.md's limits meet the champion."""
        from core.campaign.foreword import foreword

        held = are_held(self._policy)
        return foreword(
            self.experiment(0), self.experiment(champion.number), self.program.limits,
            noise=noise, most=most, seconds=seconds, pairs=PAIRS if held else 1, held=held,
        )  # fmt: skip

    def _loop(
        self, agent: Agent, runner: ExperimentRunner, tell: OnEvent, most: float, begun: float, seconds: float
    ) -> str:
        """Runs one experiment after the other, the pending one first. Returns why there are no more."""
        added = repeats = 0
        hours = f"{seconds / 3600:g} hours, the limit"
        if most > 0 and (pending := runner.resume()) is not None:
            added += 1
            agent.observe(pending)
        while True:
            if added >= most:
                return f"{added} experiments, the limit" if most else "no experiments were asked for"
            if time.monotonic() - begun >= seconds:
                return hours
            if repeats >= REPEATS_IN_A_ROW:
                return (
                    f"{agent.name} proposed {repeats} trainers in a row that have their verdict already: "
                    "it has run out of ideas; give it another program.md or wider `# tune:` ranges"
                )
            proposal = self._ask(agent)
            over = time.monotonic() - begun >= seconds  # thinking takes minutes
            if proposal is None:
                return hours if over else agent.why_none or f"{agent.name} has nothing more to propose"
            if (earlier := self.repeat_of(proposal.text)) is not None:
                repeat = Repeat(proposal.hypothesis, proposal.agent, earlier)
                repeats += 1
                agent.repeated(repeat)
                tell(repeat)
            elif over:
                number = runner.pin(proposal, self.champion).number
                return f"{hours}; what {proposal.agent} still proposed is experiment {number}, which the next run tries"
            else:
                experiment = runner.experiment(proposal, self.champion)
                added, repeats = added + 1, 0
                agent.observe(experiment)

    def try_worktree(
        self, hypothesis: str, on_event: OnEvent | None = None, *, agent: str = "try", job: str = ""
    ) -> Experiment | Repeat:
        """One experiment with the trainer as it was edited in the work tree, the baseline first if it is missing.

        All that can be checked without a trial is checked first, before data is prepared. On anything but `keep` the
        work tree gets the champion's text back, unless it was edited further meanwhile; what was tried stays under its
        ref. Where a kill cut off the trial of the very same text, that one is finished. `job` names a detached call.
        Raises UserError where there is nothing to try, and where a fixed constant was changed.
        """
        from core.store.recovery import pending, recover

        if not hypothesis.strip():
            raise UserError('say what should be better, and why: autoresearch try -m "hypothesis"')
        with self._writing("try", on_event, job) as session:
            text = self.repo.work_text()
            if text is None:
                raise UserError(
                    f"there is no train.py in {self.root}; get the champion's back with: git checkout train.py"
                )
            if not self.repo.on_branch():
                raise UserError(f"HEAD is not on the campaign's branch; change to it with: git switch {self.branch}")
            recover(self, session.tell)
            self._check_base()
            champion = self.ledger.champion()
            waiting = None if champion is None else pending(self, champion)
            goes_on = waiting is not None and self.repo.text(waiting.commit) == text
            if not goes_on and (repeat := self._checked_edit(text, hypothesis, agent, session.tell)) is not None:
                return repeat
            session.tell(Accepted(max(1, len(self)) + (waiting is not None and not goes_on)))
            runner = self._prepared(session)
            if champion is None:
                runner.baseline()
            finished = runner.resume()
            if finished is not None:
                if goes_on:
                    return finished
                if (repeat := self._checked_edit(text, hypothesis, agent, session.tell)) is not None:
                    return repeat
            return runner.experiment(Proposal(text=text, hypothesis=hypothesis, agent=agent), self.champion)

    def _checked_edit(self, text: str, hypothesis: str, agent: str, tell: OnEvent) -> Repeat | None:
        """The repeat that an edit is, whose text the work tree then loses. Raises UserError for one to be mended first.

        A text that can't be parsed is recorded as a crash; before the baseline has run it is refused, as that would
        cost the baseline's trials.
        """
        from core.store.recovery import sync_worktree
        from core.store.repository import blob_id

        champion, base = self.ledger.champion(), self._base_text()
        whose = "the baseline's" if champion is None else f"the champion's, experiment {champion.number}"
        if text == base or (champion is None and fingerprint(text) == fingerprint(base)):
            raise UserError(f"train.py equals {whose}: edit it, then try")
        if champion is not None and (earlier := self.repeat_of(text)) is not None:
            tell(Accepted(earlier.number, repeat=True))
            sync_worktree(self.repo, champion, {blob_id(text.encode())}, tell)
            return Repeat(hypothesis, agent, earlier)
        refused = refusal(text, base, self.program.fixed)
        if refused is not None and refused.verdict == "invalid":
            raise UserError(f"train.py {refused.reason}: put back what it was, then try")
        if refused is not None and champion is None:
            raise UserError(f"{refused.reason}; mend train.py, then try")
        return None

    def confirm(self, seeds: int, on_event: OnEvent | None = None) -> Confirmation:
        """Champion against baseline with `seeds` seeds that no trial had yet, on val and on the test split.

        Every trial is recorded as it ends: the next call resumes what was cut off, and a higher number of seeds adds to
        what is there. A new champion starts a new confirmation. Raises UserError where the champion is the baseline.
        """
        from core.campaign import confirm
        from core.campaign.remeasure import RemeasurementRunner
        from core.campaign.schedule import interleaved, remaining
        from core.campaign.studies import with_a_gain
        from core.store.recovery import recover

        baseline, champion = with_a_gain(self, "confirm")
        with self._writing("confirm", on_event) as session:
            recover(self, session.tell)
            self._engine.prepare(self.preset, session.tell)
            recorded = self.ledger.measurements("confirm", champion.number)
            chosen = confirm.seeds_for(seeds, recorded, self.ledger.seeds())
            planned = interleaved(baseline, champion, chosen)
            left = remaining(planned, recorded, self.ledger.attempts)
            seconds = confirm.seconds_of(left, recorded)
            session.tell(Confirming(champion=champion.number, seeds=tuple(chosen), trials=len(left), seconds=seconds))
            recorded = RemeasurementRunner(session).run("confirm", champion.number, planned, test=True)
        return confirm.conclude(self.ledger.believed(baseline), self.ledger.believed(champion), recorded)

    def ablate(
        self,
        seeds: int = 3,
        *,
        hours: float | None = None,
        trials: int | None = None,
        propose: bool = False,
        on_event: OnEvent | None = None,
    ) -> Ablation:
        """Which kept changes the champion still needs: each is left out, on `seeds` seeds that no trial had yet.

        After `hours` or so many `trials` it starts none; the next call goes on, the most valuable first. With `propose`
        the champion without what it does not need is one more experiment. UserError where no change was kept.
        """
        from core.campaign.studies import Ablated
        from core.store.recovery import recover

        seconds, most = 3600 * _or_infinite(hours), _or_infinite(trials)
        with self._writing("ablate", on_event) as session:
            recover(self, session.tell)
            study = Ablated(self)
            self._engine.prepare(self.preset, session.tell)
            study.run(session, seeds, seconds, most)
            found = study.result(seeds)
            if not propose:
                return found
            runner = self._prepared(session)  # whose clock starts here
            if runner.resume() is not None and self.champion.number != found.champion:
                session.tell(Notice("an experiment that was pending became champion: ablate that one"))
                return found
            return study.propose(session, found, lambda proposal: runner.experiment(proposal, self.champion))

    def transfer(self, preset: Preset, seeds: int = 3, on_event: OnEvent | None = None) -> Transfer:
        """Baseline and champion under another preset, as `scaled_preset` makes it: how much of the gain carries over.

        Every trial is recorded as it ends: the next call resumes what was cut off, and a higher number of seeds adds to
        what is there. UserError where the champion is the baseline, and where its changes can't be brought there.
        """
        from core.campaign.studies import Transferred
        from core.store.recovery import recover

        with self._writing("transfer", on_event) as session:
            recover(self, session.tell)
            study = Transferred(self, preset)
            self._engine.prepare(preset, session.tell)
            study.run(session, seeds)
        return study.result(self.confirmation())

    @contextmanager
    def _writing(
        self, command: activity.Command, on_event: OnEvent | None, job: str = "", *, full_trials: bool = False
    ) -> Iterator[Session]:
        """Holds the campaign's lock. `program.md` is read anew. What killed runs left is removed."""
        from core.sandbox import janitor
        from core.store.whereabouts import Whereabouts

        whereabouts = Whereabouts(self.root, self.files.state)

        def pass_on(event: Event) -> None:
            whereabouts.check()
            if on_event is not None:
                on_event(event)

        writing = activity.writing(self.files, command, self.preset.budget_seconds, pass_on, job)
        with whereabouts.explaining(), disk_full_as_user_error(self.root), writing as tell:
            try:
                self.read_program()
                if removed := janitor.clean():
                    tell(Notice(str(removed)))
                yield Session(
                    campaign=self, engine=self._engine, policy=self._policy, tell=tell, full_trials=full_trials
                )
            finally:
                self.repo.close()  # an interrupt may have cut its helper process off in the middle of an answer

    def _prepared(self, session: Session) -> ExperimentRunner:
        """Prepares the corpus and returns what runs experiments."""
        from core.campaign.experiment import ExperimentRunner

        self._engine.prepare(self.preset, session.tell)
        return ExperimentRunner(session)

    def _base_text(self) -> str:
        """The trainer that the next edit is compared with: the champion's, before the baseline the branch's."""
        champion = self.ledger.champion()
        commit = self.repo.head() if champion is None else champion.commit
        assert commit is not None, "recovery has raised before"
        return self.repo.text(commit)

    def _check_base(self) -> None:
        """Raises UserError for a baseline that can't run, and for a fixed constant that the trainer lacks."""
        base, champion = self._base_text(), self.ledger.champion()
        if champion is None:
            try:
                check(base)
            except UserError as error:
                mend = "fix train.py and commit it: git commit -am baseline"
                raise UserError(f"the baseline can't run: {error}; {mend}") from None
        has = read_constants(base) if champion is None else self.ledger.constants(champion.number)
        if unknown := [name for name in self.program.fixed if name not in has]:
            whose = "the baseline's" if champion is None else "the champion's"
            raise UserError(
                f"program.md fixes {', '.join(unknown)}, and {whose} train.py has no such constant; "
                f"it has {', '.join(sorted(has)) or 'none'}"
            )

    def _ask(self, agent: Agent) -> Proposal | None:
        try:
            self.read_program()
        except UserError:
            pass  # being edited right now, perhaps: the one read before holds on
        return agent.propose(self)


def _or_infinite(limit: float | None) -> float:
    if limit is not None and (math.isnan(limit) or limit < 0):
        raise UserError(f"a limit is a number from 0 up, not {limit}")
    return math.inf if limit is None else limit
