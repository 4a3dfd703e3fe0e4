"""Coding agents as small Python scripts, and campaigns that they work on. Imported as `command_scripts`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from campaigns import a_campaign

from core.agents.command.agent import CommandAgent
from core.agents.command.factory import command
from core.campaign.campaign import Campaign
from core.events import Event, Notice

# Edits SCORE in the trainer of `campaigns.trainer` and says why.
EDIT = """
import pathlib, re
def edit(score):
    path = pathlib.Path("train.py")
    path.write_text(re.sub("SCORE = [^ ]*", f"SCORE = {score}", path.read_text()))
def say(text):
    pathlib.Path("hypothesis.txt").write_text(text)
"""


def script(folder: Path, code: str, name: str = "agent.py") -> str:
    """The command that runs the code as a coding agent."""
    path = folder / name
    path.write_text(EDIT + code)
    return shlex.join([sys.executable, str(path)])


class Night:
    """A campaign with scripted trials and what was told while it ran."""

    def __init__(self, root: Path, **values: Any) -> None:
        self.campaign: Campaign = a_campaign(root, **values)
        self.events: list[Event] = []

    def run(self, agent: Any, experiments: int = 1) -> None:
        self.campaign.run(agent, experiments=experiments, on_event=self.events.append)

    def notices(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Notice)]

    def printed(self) -> str:
        folder = self.campaign.root / ".git" / "autoresearch" / "agents" / "command"
        return "".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.txt")))


def an_agent(folder: Path, code: str, tail: str = "", **options: Any) -> CommandAgent:
    """The command agent with that code; `tail` is what follows on its command line."""
    return command(f"{script(folder, code)} {tail}".strip(), **options)
