"""Shows a model what others wrote: cleaned and bounded, in a marked block that the text in it can't close."""

from __future__ import annotations

import hmac
import re
import secrets
from pathlib import Path
from typing import Literal

from core.agents.record_text import bounded
from core.system.text import clean

_FILE = "mark"
_SECRET = re.compile(r"[0-9a-f]{32}")


class Quotes:
    """Makes the data blocks of one conversation. Whoever wrote what is quoted must not know `mark`."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __call__(
        self, what: str, text: str, *, characters: int = 4_000, lines: int = 80, keep: Literal["start", "end"] = "start"
    ) -> str:
        """`text` in a block that says `what` it is (our words), cut to the bounds."""
        inner = bounded(clean(text), characters, lines, keep).replace(self.mark, "[mark]")
        return f'<data-{self.mark} of="{what}">\n{inner}\n</data-{self.mark}>'


def mark_of(secret: str, number: int) -> str:
    """The mark of the conversation about experiment `number`.

    Derived, so that a replay makes equal requests; no trial runs between two conversations about one experiment.
    """
    return hmac.digest(secret.encode(), str(number).encode(), "sha256").hex()[:16]


def campaign_secret(folder: Path) -> str:
    """The campaign's own secret, made at the first call. `folder` must be out of every trial's reach."""
    if (held := existing_secret(folder)) is not None:
        return held
    secret = secrets.token_hex(16)
    (folder / _FILE).write_text(secret + "\n", encoding="ascii")
    return secret


def existing_secret(folder: Path) -> str | None:
    """The campaign's secret if it has one."""
    try:
        held = (folder / _FILE).read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        return None
    return held if _SECRET.fullmatch(held) else None


def escaped(text: str) -> str:
    """A trainer's text with invisible characters as Python's escapes, so that an edit can name them."""
    return "".join(
        char if char in "\n\t" or char.isprintable() else char.encode("unicode_escape").decode()
        for char in text.replace("\r\n", "\n")
    )
