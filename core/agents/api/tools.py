"""The descriptions of the tools that a model gets. `workbench.py` runs them."""

from __future__ import annotations

import typing
from typing import Any

from core.agents.llm.base import Tool
from core.records import Verdict

CHECKS = 4  # a proposal
LISTED = 100  # experiments of one answer
LONGEST_HYPOTHESIS = 600  # characters
LONGEST_LESSON = 300


def _tool(name: str, description: str, required: tuple[str, ...] = (), **fields: dict[str, Any]) -> Tool:
    schema = {"type": "object", "properties": fields, "required": list(required), "additionalProperties": False}
    return Tool(name=name, description=description, schema=schema)


def _string(description: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "description": description, **more}


def _integer(description: str, minimum: int = 0) -> dict[str, Any]:
    return {"type": "integer", "description": description, "minimum": minimum}


TOOLS = (
    _tool(
        "read_trainer",
        "Shows train.py with line numbers: your draft (which starts as the champion's text), or the trainer of an "
        "earlier experiment. The numbers and the bar behind them are not part of the text.",
        experiment=_integer("whose trainer; leave out for your draft"),
        first=_integer("first line, from 1", 1),
        last=_integer("last line", 1),
    ),
    _tool("read_program", "Shows program.md, the person's instructions, as they are now."),
    _tool(
        "list_experiments",
        f"Lists earlier experiments, a line each: number, verdict, val_bpb as it is believed (+- is a 95 % interval), "
        f"gain over the champion of then, what was measured, who proposed it, hypothesis. At most {LISTED} at once.",
        first=_integer("lowest number; leave out for 0"),
        last=_integer("highest number; leave out for the newest"),
        verdict=_string("only these", enum=list(typing.get_args(Verdict))),
        sort=_string(
            "`number` (newest first, the default) or `score` (lowest believed val_bpb first)", enum=["number", "score"]
        ),
        count=_integer("how many at most; leave out for 30", 1),
    ),
    _tool(
        "read_experiment",
        "Shows one experiment: hypothesis, verdict and why, its diff against the champion of its time, its loss curve "
        "thinned out, and the end of what it printed.",
        ("number",),
        number=_integer("which"),
    ),
    _tool(
        "edit",
        "Replaces `old` by `new` in your draft. `old` must be there exactly once, whitespace included; with `all` true "
        "every place is replaced. Several edits can be made in one answer; they are made in order.",
        ("old", "new"),
        old=_string("the text as it stands, without line numbers; enough lines to be there only once"),
        new=_string("what stands there instead; empty to delete"),
        all={"type": "boolean", "description": "replace every occurrence"},
    ),
    _tool(
        "write_trainer",
        "Replaces your whole draft. For small changes use edit: it is cheaper and leaves the rest as it is.",
        ("text",),
        text=_string("all of train.py"),
    ),
    _tool("diff", "Shows what your draft changes in the champion, as a unified diff."),
    _tool("reset_draft", "Makes your draft the champion's text again."),
    _tool(
        "check",
        "Parses your draft, holds it against the fixed constants and runs one step of it in the sandbox: says what "
        f"fails, or parameters, peak memory and seconds. Costs seconds instead of a trial; {CHECKS} times a proposal.",
    ),
    _tool(
        "lesson",
        "Leaves one line for later proposals, also of other runs: what an experiment has taught that its verdict alone "
        "does not say. The last lessons are shown to you at the start.",
        ("text",),
        text=_string(f"one line, {LONGEST_LESSON} characters at most"),
    ),
    _tool(
        "propose",
        "Hands in your draft as the next experiment and ends this conversation. ToolError, with the reason, if nothing "
        "was changed, if it can't be parsed, if a fixed constant was changed, or if this trainer has its verdict.",
        ("hypothesis",),
        hypothesis=_string(
            f"what should get better and why: one to three sentences, {LONGEST_HYPOTHESIS} characters at most"
        ),
    ),
    _tool(
        "nothing_more",
        "Ends the whole run: only if program.md's goal is reached or it asks for an end. Otherwise go on.",
        ("reason",),
        reason=_string("why, in a sentence"),
    ),
)
