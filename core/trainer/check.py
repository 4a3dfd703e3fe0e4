"""Whether a trainer's text may be tried. Nothing here runs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from core.records import PROGRAM, TRAINER, UserError
from core.trainer.constants import python_errors_as_user_error, read_constants, read_tunables


@dataclass(frozen=True)
class Refusal:
    """Why a text gets no trial, and the verdict that it has without one."""

    verdict: Literal["crash", "invalid"]
    reason: str


def refusal(text: str, champion_text: str, fixed: Sequence[str]) -> Refusal | None:
    """None for a text that may be tried: it compiles, and the constants in `fixed` are the champion's."""
    try:
        check(text)
        before, after = (read_constants(champion_text), read_constants(text)) if fixed else ({}, {})
    except UserError as error:
        return Refusal("crash", str(error))
    changed = [name for name in fixed if before.get(name) != after.get(name)]
    return Refusal("invalid", f"changes {', '.join(changed)}, which {PROGRAM} fixes") if changed else None


def check(text: str, name: str = TRAINER) -> None:
    """Raises UserError with the line for a text that Python can't compile or whose `# tune:` comments are wrong."""
    with python_errors_as_user_error(name):
        compile(text, name, "exec", dont_inherit=True)
    read_tunables(text, name)
