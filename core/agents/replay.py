"""Runs a campaign again from its record, with no network: the model's answers anew through the same conversation.

What others than the model proposed, and edits that fit no more, come from the campaign's own refs.
"""

from __future__ import annotations

from pathlib import Path

from core.agents.api.agent import PREFIX, ApiAgent
from core.agents.api.quoting import held_secret
from core.agents.base import Agent, AgentContext, History, Unavailable
from core.agents.llm.archive import FILE
from core.agents.llm.base import ModelClient, Reply, Request
from core.agents.llm.connect import recording
from core.events import Notice, Repeat
from core.records import TRAINER, Experiment, Proposal, UserError
from core.store.reader import CampaignReader


class ReplayAgent(Agent):
    """Proposes the experiments of the campaign in `replay`, in their order and under the names of who proposed them."""

    name = "replay"

    def __init__(self, replay: Path) -> None:
        """Raises UserError if there is no campaign in that folder, or none of its experiments has run."""
        self._root = replay.absolute()
        with CampaignReader.open(replay) as source:
            _ = source.champion
        self._source: CampaignReader | None = None
        self._api: ApiAgent | None = None
        self._context: AgentContext | None = None
        self._number = 0  # of the source's experiment that is proposed
        self._skipped = 0  # experiments of the source that this campaign did not run again, as it has their verdict
        self._differs = False  # whether it was told that requests do
        self._diverged = False  # whether it was told that the campaigns do
        self._compared = False

    def begin(self, context: AgentContext) -> None:
        if context.root.resolve() == self._root.resolve():
            raise UserError(
                f"{self._root} can't be its own replay; name a new folder: autoresearch run DIR --agent replay "
                f"--replay {self._root}"
            )
        self._context = context
        self._source = CampaignReader.open(self._root)
        agents = self._source.files.agents
        if (agents / FILE).exists():
            recorded = recording(agents, self._told_of_difference)
            self._api = ApiAgent(lambda context: _About(recorded, self), model="replay", secret=held_secret(agents))
            self._api.begin(context)

    def propose(self, history: History) -> Proposal | None:
        """The next experiment of the source; None behind its last one."""
        source, context = self._source, self._context
        assert source is not None and context is not None, "`begin` comes first"
        self._number = len(history) + self._skipped
        if not self._compared:
            self._compare(history, source, context)
        found = source.experiments(self._number, self._number + 1, trials=False)
        if not found:
            return None
        (experiment,) = found
        if history.champion_text != source.trainer_text(experiment.parent):
            self._tell_divergence(self._number, "the champion is not the record's")
        as_recorded = Proposal(
            text=source.trainer_text(experiment.commit), hypothesis=experiment.hypothesis, agent=experiment.agent
        )
        if self._api is None or not experiment.agent.startswith(PREFIX):
            return as_recorded
        return self._thought_again(self._api, history, experiment, as_recorded)

    def observe(self, experiment: Experiment) -> None:
        assert self._source is not None, "`begin` comes first"
        number = experiment.number + self._skipped
        for recorded in self._source.experiments(number, number + 1, trials=False):
            if recorded.verdict != experiment.verdict:
                self._tell_divergence(number, f"{experiment.verdict}, and {recorded.verdict} in the record")

    def repeated(self, repeat: Repeat) -> None:
        self._skipped += 1

    def end(self) -> None:
        if self._api is not None:
            self._api.end()
        if self._source is not None:
            self._source.close()

    @property
    def number(self) -> int:
        """Of the source's experiment that is worked on."""
        return self._number

    def _thought_again(self, api: ApiAgent, history: History, experiment: Experiment, recorded: Proposal) -> Proposal:
        """What the conversation comes to now; the recorded trainer where that is nothing or an edit fits nowhere."""
        assert self._context is not None
        api.name = experiment.agent
        try:
            proposal, why = api.propose(history), "its answers came to no proposal"
        except (Unavailable, UserError) as error:
            proposal, why = None, str(error)
        if proposal is not None and proposal.text != recorded.text and api.bench is not None and api.bench.failed_edits:
            proposal, why = None, "its edits fit this champion no more"
        if proposal is None:
            self._context.tell(
                Notice(f"experiment {experiment.number} of {self._root}: {why}; its trainer is tried as it was")
            )
            return recorded
        return proposal

    def _compare(self, history: History, source: CampaignReader, context: AgentContext) -> None:
        """Says what this campaign does not share with its source from the start."""
        self._compared = True
        if history.preset != source.preset:
            context.tell(Notice(f"the preset is not that of {self._root}: scores will differ"))
        if history.text(0) != source.text(0):
            self._diverged = True
            context.tell(
                Notice(
                    f"the baseline's {TRAINER} is not that of {self._root}: recorded trainers stand in where edits "
                    "don't fit"
                )
            )

    def _tell_divergence(self, number: int, what: str) -> None:
        if not self._diverged and self._context is not None:
            self._diverged = True
            self._context.tell(
                Notice(
                    f"from experiment {number} of {self._root} on, this replay diverges from the record: {what}; "
                    "recorded trainers bring back their own champion's edits"
                )
            )

    def _told_of_difference(self, experiment: int, what: str) -> None:
        if not self._differs and self._context is not None:
            self._differs = True
            self._context.tell(
                Notice(f"from experiment {experiment} of {self._root} on, requests are not those of the record: {what}")
            )


class _About:
    """The recorded answers, asked for by the source's number of an experiment."""

    def __init__(self, recorded: ModelClient, agent: ReplayAgent) -> None:
        self._recorded = recorded
        self._agent = agent

    def ask(self, request: Request, experiment: int) -> Reply:
        return self._recorded.ask(request, self._agent.number)

    def close(self) -> None:
        self._recorded.close()
