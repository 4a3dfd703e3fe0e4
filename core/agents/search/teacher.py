"""Another campaign to learn from: its experiments for the search, its lessons for models and coding agents."""

from __future__ import annotations

from pathlib import Path

from core.agents.base import AgentContext
from core.agents.lessons import NAME, Lessons
from core.agents.search.points import CONSTANTS_ONLY
from core.agents.search.prior import PriorTrial, Source, scale_of
from core.events import Notice
from core.records import UserError
from core.store.reader import CampaignReader
from core.system.text import one_line
from core.trainer.constants import read_tunables

MOST = 150  # experiments that are learned from: the best, and the last ones
MOST_LESSONS = 20  # of its kept changes


class Teacher:
    """The campaign in `root`, read once. UserError if there is none, or if no experiment of it has a score."""

    def __init__(self, root: Path) -> None:
        with CampaignReader.open(root) as campaign:
            _ = campaign.champion  # or a UserError that says what to run first
            self._root, self._preset = campaign.root, campaign.preset
            baseline = campaign.experiment(0)
            found = {e.number: e for e in (baseline, *campaign.best(MOST), *campaign.recent(MOST))}
            # A failure of an edit elsewhere in the trainer says nothing of its constants.
            telling = [e for e in found.values() if e.val_bpb is not None or e.agent == CONSTANTS_ONLY]
            trials = [PriorTrial(campaign.constants(e.number), e.val_bpb) for e in telling]
            tuned = frozenset(read_tunables(campaign.text(0)))
            kept = sorted((e for e in found.values() if e.verdict == "keep" and e.gain), key=lambda e: -(e.gain or 0))
        scale = scale_of(baseline)
        if scale is None or sum(trial.val_bpb is not None for trial in trials) < 2:
            raise UserError(f"--learn-from: no experiment in {root} has a score, beside the baseline's, to learn from")
        self._kept = [f"{one_line(self._root.name)}: kept {one_line(e.hypothesis)}" for e in kept[:MOST_LESSONS]]
        self.source = Source(name=str(self._root), trials=trials, tuned=tuned, scale=scale)

    def teach(self, context: AgentContext, lessons: Path | None) -> None:
        """Adds its lessons to `lessons`, else to the campaign's, and says what is taken over and what is not."""
        if context.root.resolve() == self._root.resolve():
            raise UserError(f"--learn-from: {self._root} is this campaign itself; name another one's folder")
        own = Lessons(lessons or context.root / NAME, context.tell)
        theirs = [line.removeprefix("- ") for line in Lessons(self._root / NAME, context.tell).read()]
        for lesson in (*theirs, *self._kept):
            own.append(lesson)
        scored = sum(trial.val_bpb is not None for trial in self.source.trials)
        context.tell(
            Notice(
                f"learning from {self._root}: {len(self.source.trials)} experiments, {scored} with a score, preset "
                f"{self._preset.name} on {self._preset.device}. Which were better counts, the less the further its "
                "steps and tokens a parameter are from this campaign's; its scores are compared with none here"
            )
        )
