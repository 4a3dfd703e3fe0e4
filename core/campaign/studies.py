"""Runs the studies of a finished night: the champion without each of its changes, and champion and baseline elsewhere.

`ablate` and `transfer` decide what runs and what it means. Every trial is recorded as it ends, so that a study that was
cut off continues.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import presets
from core.campaign import ablate, confirm, transfer
from core.campaign.ablate import Ablation, LeftOut, SmallerChampion
from core.campaign.confirm import Confirmation
from core.campaign.remeasure import RemeasurementRunner
from core.campaign.schedule import fresh_seeds, interleaved, remaining
from core.campaign.session import Session
from core.campaign.transfer import Transfer
from core.events import Notice
from core.records import Experiment, Measurement, Preset, Proposal, UserError
from core.store.reader import CampaignReader
from core.system.files import replacing
from core.system.text import seconds as words_of
from core.trainer.fingerprint import fingerprint, nodes

ABLATE, TRANSFER = "ablate", "transfer"
Try = Callable[[Proposal], Experiment]  # to its verdict


def with_a_gain(campaign: CampaignReader, what_for: str) -> tuple[Experiment, Experiment]:
    """Baseline and champion. UserError where they are the same, or not there yet."""
    baseline, champion = campaign.ledger.experiment(0), campaign.ledger.champion()
    if baseline is None or champion is None or champion.number == baseline.number:
        what = "it has no baseline yet" if baseline is None else "its champion is the baseline"
        raise UserError(
            f"nothing to {what_for} in {campaign.root}: {what}; look for a better one with: "
            f"autoresearch run {campaign.root}"
        )
    return baseline, champion


class Ablated:
    """The champion's stack of kept changes, and what was measured of it so far."""

    def __init__(self, campaign: CampaignReader) -> None:
        """UserError where there is no change to leave out."""
        self.campaign = campaign
        _, self.champion = with_a_gain(campaign, "leave out")
        self.kept = [one for one in campaign.ledger.experiments(trials=False) if one.verdict == "keep"]
        self.texts = [campaign.trainer_text(one.commit) for one in self.kept]
        self._attempts = campaign.ledger.attempts
        self.candidates: list[LeftOut] = ablate.stack(self.kept, self.texts, campaign.repo.merge_lines)

    def recorded(self) -> list[Measurement]:
        return self.campaign.ledger.measurements(ABLATE, self.champion.number)

    def result(self, seeds: int) -> Ablation:
        """What is known by now; `seeds` tells what is left to run."""
        recorded = self.recorded()
        chosen = fresh_seeds(seeds, recorded, self.campaign.ledger.seeds())
        left = ablate.next_trials(self.candidates, self.champion, recorded, chosen, self._attempts)
        found = ablate.conclude(self.candidates, self.champion, self.texts[-1], recorded, len(left))
        proposals = self._proposals(found)
        return replace(found, smaller=proposals[0][0] if proposals else None)

    def run(self, session: Session, seeds: int, seconds: float, trials: float) -> None:
        """Runs what is left, the most valuable first, until the limits; a trial that has begun ends."""
        begun, done, runner = time.monotonic(), 0, RemeasurementRunner(session)
        chosen = fresh_seeds(seeds, self.recorded(), self.campaign.ledger.seeds())
        while True:
            recorded = self.recorded()
            left = ablate.next_trials(self.candidates, self.champion, recorded, chosen, self._attempts)
            count = min(len(left) + done, trials)
            if done == 0:
                session.tell(Notice(self._plan(int(count), recorded, seconds)))
            if done >= count or time.monotonic() - begun >= seconds:
                if left:
                    session.tell(Notice(f"the limit came first: {len(left)} trials are left, by the same command"))
                return
            runner.one(ABLATE, self.champion.number, left[0], done, int(count))
            done += 1

    def propose(self, session: Session, found: Ablation, attempt: Try) -> Ablation:
        """Has the first smaller champion tried that has no verdict yet. The result with it."""
        for smaller, text in self._proposals(found):
            if smaller.experiment is None:
                numbers = ", ".join(map(str, smaller.without))
                hypothesis = (
                    f"leave out experiment{'s' * (len(smaller.without) > 1)} {numbers}: no gain was found in it"
                )
                judged = attempt(Proposal(text=text, hypothesis=hypothesis, agent=ABLATE))
                return replace(found, smaller=replace(smaller, experiment=judged.number, verdict=judged.verdict))
        session.tell(Notice("nothing to propose: " + ("all has its verdict" if found.smaller else found.conclusion)))
        return found

    def _proposals(self, found: Ablation) -> list[tuple[SmallerChampion, str]]:
        """The smaller champions, those that were not tried before the others."""
        proposals = []
        for numbers in ablate.superfluous(found.changes):
            text, gone = ablate.without(numbers, self.kept, self.texts, self.campaign.repo.merge_lines)
            if gone != numbers:
                continue
            # An earlier champion's text is a new experiment on this one.
            later = self.campaign.ledger.experiments(self.champion.number + 1, trials=False)
            earlier = next((one for one in later if one.fingerprint == fingerprint(text)), None)
            smaller = SmallerChampion(
                without=gone,
                nodes=nodes(text),
                champion_nodes=nodes(self.texts[-1]),
                experiment=None if earlier is None else earlier.number,
                verdict=None if earlier is None else earlier.verdict,
            )
            proposals.append((smaller, text))
        return sorted(proposals, key=lambda one: one[0].experiment is not None)

    def _plan(self, count: int, recorded: list[Measurement], limit: float) -> str:
        """The line before the first trial."""
        kept = f"{len(self.kept) - 1} kept changes of experiment {self.champion.number}"
        if count == 0:
            return f"{kept}: nothing is left to run; --seeds adds to it" if recorded else f"{kept}: nothing runs"
        took = [one.trial.wall_seconds for one in recorded] or [one.wall_seconds for one in self.champion.trials]
        total = count * statistics.median(took)
        within = f", of which the limit is {words_of(limit)}" if limit < total else ""
        return f"{kept}: {count} trials to run, about {words_of(total)}{within}"


class Transferred:
    """Baseline and champion at another scale, and what was measured of them so far."""

    def __init__(self, campaign: CampaignReader, preset: Preset) -> None:
        """UserError where the champion is the baseline, or can't be brought to that scale."""
        self.campaign = campaign
        self.baseline, self.champion = with_a_gain(campaign, TRANSFER)
        baseline, champion = (campaign.trainer_text(one.commit) for one in (self.baseline, self.champion))
        self.carried = transfer.carry(baseline, champion, campaign.preset, preset)

    def recorded(self) -> list[Measurement]:
        return self.campaign.ledger.measurements(self.carried.name, self.champion.number)

    def result(self, confirmed: Confirmation | None) -> Transfer:
        return transfer.conclude(
            self.baseline, self.champion, self.carried, self.campaign.preset, self.recorded(), confirmed
        )

    def run(self, session: Session, seeds: int) -> None:
        """Runs the trials that are left. The engine has the other scale's corpus prepared."""
        recorded = self.recorded()
        chosen = confirm.seeds_for(seeds, recorded, self.campaign.ledger.seeds())
        texts = {"baseline": self.carried.baseline, "champion": self.carried.champion}
        planned = [replace(one, text=texts[one.role]) for one in interleaved(self.baseline, self.champion, chosen)]
        left = len(remaining(planned, recorded, self.campaign.ledger.attempts))
        took = [one.trial.wall_seconds for one in recorded]
        if not took:  # start-up and scoring as at the campaign's own scale
            beyond = [one.wall_seconds - one.train_seconds for one in self.champion.trials]
            took = [self.carried.preset.budget_seconds + statistics.median(beyond)]
        for note in self.carried.notes:
            session.tell(Notice(note))
        text = f"{left} trials to run, about {words_of(left * statistics.median(took))}" if left else "all have run"
        session.tell(Notice(f"experiment {self.champion.number} against the baseline at that scale: {text}"))
        folder = self.campaign.files.measurements(self.carried.name, self.champion.number)
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / self.campaign.files.preset.name, through=folder) as file:
            file.write(presets.dump(self.carried.preset).encode())
        RemeasurementRunner(session, self.carried.preset).run(self.carried.name, self.champion.number, planned)
