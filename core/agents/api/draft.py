"""The text that a model edits: exact replacements, with errors that help to correct a failed one, and its diff."""

from __future__ import annotations

import difflib
import itertools
import re

from core.agents.api.arguments import ToolError

LARGEST = 2_000_000  # characters of a trainer
_NUMBERED = re.compile(r"^\s*\d+\| ", re.MULTILINE)
_CLOSE = 0.5  # difflib's ratio below which a line is no help
_COMPARED = 400  # characters of a line


class Draft:
    """A trainer that starts as the champion's text."""

    def __init__(self, champion: str) -> None:
        self.champion = champion
        self.text = champion

    @property
    def changed(self) -> bool:
        return self.text != self.champion

    def reset(self) -> None:
        self.text = self.champion

    def write(self, text: str) -> None:
        if len(text) > LARGEST:
            raise ToolError(f"a trainer has at most {LARGEST} characters; {len(text)} came")
        if not text.strip():
            raise ToolError("expected the whole of train.py; an empty text came")
        self.text = text if text.endswith("\n") else text + "\n"

    def edit(self, old: str, new: str, everywhere: bool) -> str:
        """Replaces `old`; returns where, in words. Unless `everywhere`, a ToolError if it is not there exactly once."""
        if "\r\n" in self.text and "\r" not in old:
            old, new = old.replace("\n", "\r\n"), new.replace("\r\n", "\n").replace("\n", "\r\n")
        if not old:
            raise ToolError("`old` is empty: give the text that is to be replaced, or use write_trainer")
        if old == new:
            raise ToolError("`old` and `new` are equal: nothing would change")
        lines = self._lines_of(old)
        if not lines:
            raise self._not_there(old)
        if len(lines) > 1 and not everywhere:
            shown = ", ".join(map(str, lines[:10])) + (", ..." if len(lines) > 10 else "")
            raise ToolError(
                f"`old` is there {len(lines)} times, from lines {shown}: take in more of the lines around the one you "
                "mean, or set `all`"
            )
        text = self.text.replace(old, new)
        if len(text) > LARGEST:
            raise ToolError(f"a trainer has at most {LARGEST} characters; this would make {len(text)}")
        self.text = text
        return f"replaced at line {lines[0]}" if len(lines) == 1 else f"replaced at {len(lines)} places"

    def diff(self) -> str:
        """Unified, empty if nothing is changed."""
        return "\n".join(
            difflib.unified_diff(
                self.champion.splitlines(), self.text.splitlines(), "champion", "draft", n=3, lineterm=""
            )
        )

    def _lines_of(self, old: str) -> list[int]:
        """The line on which each occurrence of `old` begins."""
        before = itertools.accumulate(part.count("\n") for part in self.text.split(old)[:-1])
        return [1 + breaks + place * old.count("\n") for place, breaks in enumerate(before)]

    def _not_there(self, old: str) -> ToolError:
        if _NUMBERED.search(old):
            return ToolError("`old` is not there: it holds line numbers, which are not part of the text")
        squeezed = " ".join(old.split())
        if squeezed and squeezed in " ".join(self.text.split()):
            why = "`old` is not there: only its spaces, tabs or line breaks differ from the text's"
        else:
            why = "`old` is not there exactly as given"
        wanted = next((line for line in old.splitlines() if line.strip()), "")
        lines = [line[:_COMPARED] for line in self.text.splitlines()]
        nearest = difflib.get_close_matches(wanted[:_COMPARED], lines, 1, _CLOSE)
        if not nearest:
            return ToolError(f"{why}, and no line is like its first")
        return ToolError(f"{why}; nearest to its first line is line {lines.index(nearest[0]) + 1}:", nearest[0])
