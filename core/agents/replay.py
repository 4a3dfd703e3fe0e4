"""Repeats a recorded campaign without a network: the model's recorded answers go through the same conversation again.

The trainers of other agents, and those whose edits no longer fit, are taken from the campaign's own refs.
"""

from __future__ import annotations

from pathlib import Path

from core.agents.api.agent import PREFIX, ApiAgent
from core.agents.api.quoting import existing_secret
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
        self._source = CampaignReader.open(replay.absolute())
        _ = self._source.champion
        self._root = self._source.root
        self._api: ApiAgent | None = None
        self._noticed: set[str] = set()  # the differences from the record that a notice was given of
        self._skipped = 0  # experiments of the source that this campaign did not run again, as it has their verdict
        self.number = 0  # of the source's experiment that is proposed

    def begin(self, context: AgentContext) -> None:
        super().begin(context)
        if context.root.resolve() == self._root.resolve():
            raise UserError(
                f"{self._root} can't be its own replay; name a new folder: autoresearch run DIR --agent replay "
                f"--replay {self._root}"
            )
        agents = self._source.files.agents
        if (agents / FILE).exists():
            recorded = recording(agents, self._request_differs)
            self._api = ApiAgent(
                lambda context: _Replies(recorded, self), model="replay", secret=existing_secret(agents)
            )
            self._api.begin(context)

    def propose(self, history: History) -> Proposal | None:
        """The next experiment of the source; None after its last one."""
        self.number = len(history) + self._skipped
        self._compare(history)
        found = self._source.experiments(self.number, self.number + 1, trials=False)
        if not found:
            return None
        (experiment,) = found
        if history.champion_text != self._source.trainer_text(experiment.parent):
            self._diverges(self.number, "the champion is not the record's")
        text = self._source.trainer_text(experiment.commit)
        recorded = Proposal(text=text, hypothesis=experiment.hypothesis, agent=experiment.agent)
        if self._api is None or not experiment.agent.startswith(PREFIX):
            return recorded
        return self._repeated_conversation(self._api, history, recorded)

    def observe(self, experiment: Experiment) -> None:
        number = experiment.number + self._skipped
        for recorded in self._source.experiments(number, number + 1, trials=False):
            if recorded.verdict != experiment.verdict:
                self._diverges(number, f"{experiment.verdict}, and {recorded.verdict} in the record")

    def repeated(self, repeat: Repeat) -> None:
        self._skipped += 1

    def end(self) -> None:
        if self._api is not None:
            self._api.end()
        self._source.close()

    def _repeated_conversation(self, api: ApiAgent, history: History, recorded: Proposal) -> Proposal:
        """What the conversation proposes now; the recorded proposal if it makes none or an edit fits nowhere."""
        api.name = recorded.agent
        try:
            proposal, why = api.propose(history), "its answers came to no proposal"
        except (Unavailable, UserError) as error:
            proposal, why = None, str(error)
        if proposal is not None and proposal.text != recorded.text and api.bench is not None and api.bench.failed_edits:
            proposal, why = None, "its edits fit this champion no more"
        if proposal is None:
            self.context.tell(
                Notice(f"experiment {self.number} of {self._root}: {why}; its trainer is tried as it was")
            )
        return proposal or recorded

    def _compare(self, history: History) -> None:
        """Notices about what differs from the source from the start."""
        if history.preset != self._source.preset:
            self._notice("preset", f"the preset is not that of {self._root}: scores will differ")
        if history.text(0) != self._source.text(0):
            self._notice(
                "trainers",
                f"the baseline's {TRAINER} is not that of {self._root}: recorded trainers stand in where edits "
                "don't fit",
            )

    def _diverges(self, number: int, how: str) -> None:
        self._notice(
            "trainers",
            f"from experiment {number} of {self._root} on, this replay diverges from the record: {how}; "
            "recorded trainers bring back their own champion's edits",
        )

    def _request_differs(self, experiment: int, how: str) -> None:
        self._notice(
            "requests", f"from experiment {experiment} of {self._root} on, requests are not those of the record: {how}"
        )

    def _notice(self, about: str, text: str) -> None:
        """The first notice about each kind of difference; later ones would repeat it."""
        if about not in self._noticed:
            self._noticed.add(about)
            self.context.tell(Notice(text))


class _Replies:
    """The recorded replies, by the source's number of an experiment."""

    def __init__(self, recorded: ModelClient, agent: ReplayAgent) -> None:
        self._recorded = recorded
        self._agent = agent

    def ask(self, request: Request, experiment: int) -> Reply:
        return self._recorded.ask(request, self._agent.number)

    def close(self) -> None:
        self._recorded.close()
