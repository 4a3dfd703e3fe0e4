"""One proposal's conversation with a scripted model: what is asked, what goes back, and how it ends when it strays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from campaigns import PRESET
from histories import MemoryHistory
from scripted_model import PlainContext, Said, ScriptedModel, a_reply, opening, said, use

from core.agents.api.agent import IN_A_ROW, LATER_SECONDS, ApiAgent
from core.agents.api.conversation import MOST_ANSWERS
from core.agents.base import Unavailable
from core.agents.llm.base import LimitReached, Outage, Request
from core.events import Repeat
from core.records import Constant, UserError
from core.store.program import Program

TEXT = "RATE = 0.1  # tune: log 0.01 .. 1\nLAYERS = 2\n\n\ndef main():\n    pass\n"


def measure(constants: Mapping[str, Constant]) -> float | None:
    return 2.0 - 0.1 * float(str(constants["RATE"])) - 0.1 * float(str(constants["LAYERS"]))


def a_history() -> MemoryHistory:
    return MemoryHistory(TEXT, measure, PRESET, Program(prose="Lower it."))


def an_agent(root: Path, answers: Sequence[Said] | Callable[[Request, int], Said]) -> tuple[ApiAgent, ScriptedModel]:
    model = ScriptedModel(answers)
    agent = ApiAgent(lambda context: model, model="scripted")
    agent.begin(PlainContext(root))
    return agent, model


def context_of(agent: ApiAgent) -> PlainContext:
    assert isinstance(agent.context, PlainContext)
    return agent.context


def edit(new: str = "LAYERS = 3") -> dict[str, Any]:
    return use("edit", old="LAYERS = 2", new=new)


def propose(hypothesis: str = "one layer more") -> dict[str, Any]:
    return use("propose", hypothesis=hypothesis)


def test_a_conversation_of_three_answers_becomes_a_proposal(tmp_path: Path) -> None:
    agent, model = an_agent(
        tmp_path, [[said("I look."), use("read_trainer"), use("list_experiments")], [edit()], [propose()]]
    )
    proposal = agent.propose(a_history())
    assert proposal is not None
    assert (proposal.text, proposal.hypothesis, proposal.agent) == (
        TEXT.replace("= 2", "= 3"), "one layer more", "api:scripted",
    )  # fmt: skip
    assert [len(request.messages) for request in model.requests] == [1, 3, 5]
    for earlier, later in zip(model.requests, model.requests[1:], strict=False):
        assert later.messages[: len(earlier.messages)] == earlier.messages  # what was said is a cached prefix
        assert (later.system, later.tools) == (earlier.system, earlier.tools)
    first = model.requests[1].messages
    assert [message["role"] for message in first] == ["user", "assistant", "user"]
    assert [one["tool_use_id"] for one in first[2]["content"]] == [one["id"] for one in first[1]["content"][1:]]
    assert model.experiments == [1, 1, 1]
    assert context_of(agent).works == [
        "thinks", "reads the trainer", "lists experiments 0 to 0", "thinks, answer 2", "edits", "thinks, answer 3",
    ]  # fmt: skip
    agent.end()
    assert model.closed == 1


def test_several_tools_of_one_answer_are_carried_out_in_order(tmp_path: Path) -> None:
    agent, model = an_agent(tmp_path, [[edit(), use("edit", old="LAYERS = 3", new="LAYERS = 4"), propose()]])
    proposal = agent.propose(a_history())
    assert proposal is not None and "LAYERS = 4" in proposal.text
    assert len(model.requests) == 1


def test_what_is_refused_goes_on(tmp_path: Path) -> None:
    history = a_history()
    agent, model = an_agent(tmp_path, [[propose()], [edit(), propose()]])
    assert agent.propose(history) is not None
    assert [result["is_error"] for result in model.results()] == [True]
    assert "nothing to try yet" in model.results()[0]["content"]


def test_input_that_is_no_object_is_answered_and_goes_back_as_one(tmp_path: Path) -> None:
    agent, model = an_agent(
        tmp_path,
        [
            [
                {"type": "tool_use", "id": "a", "name": "edit", "input": '{"old": "LAY'},
                {"type": "tool_use", "name": "x"},
            ],
            [use("no such tool!")],
            [edit(), propose()],
        ],
    )
    assert agent.propose(a_history()) is not None
    _, assistant, results = model.requests[1].messages
    assert assistant["content"] == [
        {"type": "tool_use", "id": "a", "name": "edit", "input": {"not_an_object": '{"old": "LAY'}}
    ]
    assert [(one["tool_use_id"], one["is_error"]) for one in results["content"]] == [("a", True)]
    assert model.requests[2].messages[3]["content"][0]["name"] == "nosuchtool"


@pytest.mark.parametrize(
    ("stray", "told"),
    [
        (a_reply(said("What should I do?")), "Nothing happens without a tool"),
        (a_reply(), "Nothing happens without a tool"),
        (a_reply(said("  ")), "Nothing happens without a tool"),
        (a_reply(said("Let me"), edit(), stop="max_tokens"), "cut off at 32000 tokens"),
        (a_reply(stop="refusal"), "was declined"),
        (a_reply(said("I"), stop="refusal"), "was declined"),
    ],
)
def test_a_model_that_strays_is_brought_back(tmp_path: Path, stray: Any, told: str) -> None:
    agent, model = an_agent(tmp_path, [stray, stray, [edit(), propose()]])
    proposal = agent.propose(a_history())
    assert proposal is not None and "LAYERS = 3" in proposal.text
    for request in model.requests[1:]:
        assert request.messages[-1]["role"] == "user"
        assert told in request.messages[-1]["content"][-1]["text"]
        roles = [message["role"] for message in request.messages]
        assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
        assert all(message["content"] for message in request.messages)
        assert not any(block["type"] == "tool_use" for message in request.messages for block in message["content"])
    if stray.stop_reason == "refusal":
        assert all(len(request.messages) == 1 for request in model.requests)


def test_one_that_strays_for_a_third_time_is_given_up(tmp_path: Path) -> None:
    agent, model = an_agent(tmp_path, lambda request, number: [said("Hm.")])
    waits: list[float] = []
    for _ in range(IN_A_ROW + 1):
        with pytest.raises(Unavailable, match="no proposal: it stopped without a proposal") as away:
            agent.propose(a_history())
        waits.append(away.value.seconds)
    assert len(model.requests) == 3 * (IN_A_ROW + 1)
    assert waits[0] < LATER_SECONDS and waits[:2] == waits[:1] * 2 and waits[2:] == [LATER_SECONDS] * 2


def test_a_proposal_after_ones_that_were_given_up_begins_the_count_anew(tmp_path: Path) -> None:
    agent, _ = an_agent(tmp_path, [[], [], []] * 2 + [[edit(), propose()]] + [[], [], []])
    for _ in range(2):
        with pytest.raises(Unavailable):
            agent.propose(a_history())
    assert agent.propose(a_history()) is not None
    with pytest.raises(Unavailable) as away:
        agent.propose(a_history())
    assert away.value.seconds < LATER_SECONDS


def test_answers_without_a_proposal_have_an_end(tmp_path: Path) -> None:
    agent, model = an_agent(tmp_path, lambda request, number: [use("read_program")])
    with pytest.raises(Unavailable, match="40 answers without a proposal"):
        agent.propose(a_history())
    assert len(model.requests) == MOST_ANSWERS


def test_a_full_context_begins_anew_with_the_draft_kept(tmp_path: Path) -> None:
    agent, model = an_agent(tmp_path, [[edit()], a_reply(stop="context_full"), [propose()]])
    proposal = agent.propose(a_history())
    assert proposal is not None and "LAYERS = 3" in proposal.text
    assert [len(request.messages) for request in model.requests] == [1, 3, 1]
    assert "begun anew (the context was full)" in opening(model.requests[2])
    assert "-LAYERS = 2\n+LAYERS = 3" in opening(model.requests[2])


def test_a_context_that_is_always_full_is_given_up(tmp_path: Path) -> None:
    agent, model = an_agent(tmp_path, lambda request, number: a_reply(stop="context_full"))
    with pytest.raises(Unavailable, match="context was full 3 times"):
        agent.propose(a_history())
    assert len(model.requests) == 3


def test_an_outage_in_the_middle_keeps_the_draft_while_the_champion_stays(tmp_path: Path) -> None:
    history = a_history()
    agent, model = an_agent(
        tmp_path, [[edit()], Outage("overloaded", 60.0), [propose()], [edit()], Outage("x", 1.0), [], [], []]
    )
    with pytest.raises(Unavailable, match="overloaded") as away:
        agent.propose(history)
    assert away.value.seconds == 60.0
    proposal = agent.propose(history)
    assert proposal is not None and "LAYERS = 3" in proposal.text
    assert "begun anew (the model could not be reached for a while)" in opening(model.requests[2])

    with pytest.raises(Unavailable):
        agent.propose(history)
    history.record(proposal)  # a new champion: the draft was made on another one
    with pytest.raises(Unavailable):
        agent.propose(history)
    assert "begun anew" not in opening(model.requests[5])


def test_a_limit_ends_the_run_and_is_told(tmp_path: Path) -> None:
    agent, _ = an_agent(tmp_path, [LimitReached("1.00 of 1.00 USD are spent")])
    assert agent.propose(a_history()) is None
    assert agent.why_none == "api:scripted may use no more: 1.00 of 1.00 USD are spent"


def test_a_key_that_is_not_accepted_is_the_users_matter(tmp_path: Path) -> None:
    agent, _ = an_agent(tmp_path, [UserError("the key is not accepted")])
    with pytest.raises(UserError, match="not accepted"):
        agent.propose(a_history())


def test_one_that_is_accepted_no_more_at_night_leaves_the_run_to_the_search(tmp_path: Path) -> None:
    credit = UserError("the credit is used up")
    agent, _ = an_agent(tmp_path, [[edit()], credit, credit, credit])
    waits: list[float] = []
    for _ in range(3):
        with pytest.raises(Unavailable, match="the credit is used up") as away:
            agent.propose(a_history())
        waits.append(away.value.seconds)
    assert waits[2] == LATER_SECONDS > waits[0]


def test_nothing_more_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    agent, _ = an_agent(tmp_path, [[use("nothing_more", reason="done")], [use("nothing_more", reason="done")]])
    assert agent.propose(a_history()) is None
    assert agent.why_none == "api:scripted has nothing more to propose: done"


def test_nothing_is_asked_once_the_run_is_over(tmp_path: Path) -> None:
    def answer(request: Request, number: int) -> Said:
        context_of(agent).seconds = -1.0
        return [use("read_program")]

    agent, model = an_agent(tmp_path, answer)
    assert agent.propose(a_history()) is None
    assert len(model.requests) == 1


# What the model is told first


def test_the_brief_says_where_it_stands_and_what_was_tried(tmp_path: Path) -> None:
    history = a_history()
    (tmp_path / "lessons.md").write_text("- deeper is better\n")
    agent, model = an_agent(
        tmp_path, [[edit(), propose("A")], [use("edit", old="LAYERS = 3", new="LAYERS = 1"), propose("B")], [], [], []]
    )
    history.run(agent, 2)
    assert [one.verdict for one in history.found] == ["keep", "keep", "discard"]
    agent.repeated(Repeat("the same again", agent.name, history.found[2]))
    with pytest.raises(Unavailable):
        agent.propose(history)
    standing, situation = (block["text"] for block in model.requests[2].messages[0]["content"])
    assert standing == model.requests[0].messages[0]["content"][0]["text"]  # cached from proposal to proposal
    assert (
        "# program.md\n\nLower it." in standing
        and '"numpy"' in standing
        and "training seconds of a trial: 0.3" in standing
    )
    assert "becomes experiment 3. The champion is experiment 1 with val_bpb 1.6900" in situation
    assert "2 keep, 1 discard, 0 stopped, 0 crash, 0 invalid" in situation
    assert "Your last proposal was experiment 2: " in situation
    assert "#1 keep 1.6900 gain +0.1000 [api:scripted] A" in situation
    assert "#2 discard 1.8900 gain -0.2000 [api:scripted] B" in situation
    assert "- deeper is better" in situation
    assert "the same again -> #2 discard" in situation


def test_what_must_not_change_is_told_and_a_long_program_is_cut(tmp_path: Path) -> None:
    history = a_history()
    history.program = Program(prose="long " * 100_000, fixed=("LAYERS",))
    agent, model = an_agent(tmp_path, [[], [], []])
    with pytest.raises(Unavailable):
        agent.propose(history)
    standing = model.requests[0].messages[0]["content"][0]["text"]
    assert "constants that nobody may change: LAYERS" in standing
    assert len(standing) < 50_000 and "read_program shows all of it" in standing
