"""A model that a loopback server speaks for: it reads, edits and proposes by a plan. Imported as `served_model`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from messages_server import KEY, Block, MessagesServer, Request, text, thinking, tool

from core.agents.llm.archive import FILE, Archive, Exchange
from core.agents.llm.base import Usage

NUMBER = re.compile(r"becomes experiment (\d+)\.")
SCORE = re.compile(r"SCORE = (\S+)  #")


@dataclass
class Planner:
    """For each experiment what is added to the champion's SCORE, or an OUTCOME other than "scored" with a lower one.

    Three answers a proposal: it reads the trainer, edits it, proposes. Whatever goes wrong between, it goes on from
    what the last message says.
    """

    plan: Sequence[float | str]

    def __call__(self, request: Request) -> list[Block]:
        opening = "\n".join(block.get("text", "") for block in request["messages"][0]["content"])
        found = NUMBER.search(opening)
        assert found is not None
        number = int(found[1])
        step = self.plan[(number - 1) % len(self.plan)]
        results = [
            str(_flat(block["content"]))
            for message in request["messages"]
            for block in message["content"]
            if block["type"] == "tool_result" and not block.get("is_error")
        ]
        if "draft was kept" in opening or any("replaced at" in result for result in results):
            return [tool("propose", {"hypothesis": f"plan {number}: {step}"})]
        seen = next((match for result in results if (match := SCORE.search(result))), None)
        if seen is None:
            return [thinking("What is there?"), text("I read the trainer."), tool("read_trainer", {})]
        old = f"SCORE = {seen[1]}  #"
        lower = float(seen[1]) + (step if isinstance(step, float) else -0.01)
        edits = [tool("edit", {"old": old, "new": f"SCORE = {round(lower, 6)!r}  #"})]
        if isinstance(step, str):
            edits.append(tool("edit", {"old": 'OUTCOME = "scored"', "new": f'OUTCOME = "{step}"'}))
        return [thinking("Now."), text("An edit."), *edits]


def billed(server: MessagesServer) -> list[Usage]:
    """What the server counted, answer by answer, as it is priced."""
    return [
        Usage(
            input=one["input_tokens"],
            output=one["output_tokens"],
            cache_read=one["cache_read_input_tokens"],
            cache_write=one["cache_creation_input_tokens"] - one["ephemeral_1h_input_tokens"],
            cache_write_hour=one["ephemeral_1h_input_tokens"],
        )
        for one in server.billed
    ]


def _flat(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def exchanges(root: Path) -> list[Exchange]:
    """Everything that a campaign's archive holds."""
    archive = Archive.open(root / ".git" / "autoresearch" / "agents" / FILE)
    try:
        return list(archive.exchanges())
    finally:
        archive.close()


def files_with_the_key(root: Path) -> list[Path]:
    """Files of a campaign in which the key stands, in an archive's packed texts too."""
    found = [path for path in root.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    archive = root / ".git" / "autoresearch" / "agents" / FILE
    if archive.exists() and KEY in str(exchanges(root)):
        found.append(archive)
    return found
