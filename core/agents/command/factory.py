"""Makes the command agent from the options of a run."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from core.agents.command import command_line
from core.agents.command.agent import CommandAgent
from core.agents.command.environment import command_environment
from core.agents.lessons import refuse_unusable
from core.records import UserError


def command(
    command: str,
    command_env: Iterable[str] = (),
    command_read: Iterable[str | Path] = (),
    command_home: str | Path | None = None,
    command_minutes: float = 20.0,
    lessons: Path | None = None,
) -> CommandAgent:
    """For the registry. Raises UserError for a program, a variable or a path that isn't there.

    `command_env` names variables of this process, several in one parted by commas; `command_minutes` is what one
    proposal may take; `lessons` is the file of lessons, without it the campaign's own.
    """
    if not (command_minutes > 0 and math.isfinite(command_minutes)):
        raise UserError(f"--command-minutes is a number above 0, not {command_minutes}")
    if lessons is not None:
        refuse_unusable(lessons)
    environment = command_environment(
        command_line.parse(command), command_line.split_names(command_env), command_read, command_home
    )
    return CommandAgent(environment, command_minutes, lessons)
