"""The API agent: one conversation with a model for every proposal. It keeps no state beside the campaign's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from core.agents.api import brief
from core.agents.api.conversation import Conversation, GivenUp
from core.agents.api.draft import Draft
from core.agents.api.quoting import Quotes, campaign_secret, mark_of
from core.agents.api.workbench import Workbench
from core.agents.base import Agent, AgentContext, History, Unavailable
from core.agents.lessons import NAME as LESSONS
from core.agents.lessons import Lessons
from core.agents.llm.base import LimitReached, ModelClient, Outage, TimeOver
from core.events import Repeat
from core.records import Proposal, UserError
from core.system.text import one_line

PREFIX = "api:"  # of the agent's name, before the model's
ANSWER_TOKENS = 32_000  # thinking included
AGAIN_SECONDS, LATER_SECONDS = 30.0, 600.0  # after a proposal that was given up; after several in a row
IN_A_ROW = 3


class ApiAgent(Agent):
    """Proposes what a model hands in. Raises Unavailable where it can't be reached or makes no proposal."""

    def __init__(
        self,
        connect: Callable[[AgentContext], ModelClient],
        *,
        model: str,
        lessons: Path | None = None,
        answer_tokens: int = ANSWER_TOKENS,
        secret: str | None = None,
    ) -> None:
        """`connect` makes the client for one run. `secret` is that of the campaign that a replay repeats."""
        self.name = one_line(PREFIX + model)[:80]
        self._connect = connect
        self._lessons_path = lessons
        self._answer_tokens = answer_tokens
        self._secret = secret
        self._client: ModelClient | None = None
        self._repeats: list[Repeat] = []
        self._given_up = 0  # proposals in a row
        self._answered = False  # whether the model ever did
        self._kept: Draft | None = None  # of a conversation that an outage ended
        self.bench: Workbench | None = None  # of the last conversation

    def begin(self, context: AgentContext) -> None:
        super().begin(context)
        self._secret = self._secret or campaign_secret(context.state)
        self._lessons = Lessons(self._lessons_path or context.root / LESSONS, context.tell)
        self._client = self._connect(context)

    def propose(self, history: History) -> Proposal | None:
        """What the model hands in; None, with the reason in `why_none`, once it has nothing more or may spend no more.

        Raises Unavailable. Raises UserError for what a person must mend, such as a key that is not accepted, but only
        where the model has never answered in this run: later, at night, the search is to go on.
        """
        assert self._client is not None and self._secret is not None, "`begin` comes first"
        quotes = Quotes(mark_of(self._secret, len(history)))
        kept, self._kept = self._kept, None
        resumed = kept is not None and kept.champion == history.champion_text
        draft = kept if kept is not None and resumed else Draft(history.champion_text)
        bench = self.bench = Workbench(history, self.context, self._lessons, quotes, self.name, draft)
        situation = brief.situation(history, quotes, self._lessons.read(), self._repeats, self.name)
        conversation = Conversation(
            client=self._client,
            bench=bench,
            opening=(brief.standing(history), situation),
            max_tokens=self._answer_tokens,
            resumed="the model could not be reached for a while" if resumed else "",
        )
        try:
            conversation.run()
        except Outage as outage:
            self._kept = bench.draft if bench.draft.changed else None
            raise Unavailable(str(outage), outage.seconds) from outage
        except LimitReached as reached:
            self.why_none = f"{self.name} may use no more: {reached}"
            return None
        except TimeOver:
            return None
        except GivenUp as given_up:
            raise self._given_up_on(f"no proposal: {given_up}") from None
        except UserError as error:
            if not self._answered and not conversation.replies:
                raise
            raise self._given_up_on(str(error)) from error
        finally:
            self._answered |= conversation.replies > 0
        self._given_up = 0
        if bench.ended:
            self.why_none = f"{self.name} has nothing more to propose: {bench.ended}"
            return None
        self._repeats.clear()
        return Proposal(text=bench.draft.text, hypothesis=bench.hypothesis, agent=self.name)

    def _given_up_on(self, why: str) -> Unavailable:
        self._given_up += 1
        return Unavailable(why, AGAIN_SECONDS if self._given_up < IN_A_ROW else LATER_SECONDS)

    def repeated(self, repeat: Repeat) -> None:
        self._repeats.append(repeat)

    def end(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
