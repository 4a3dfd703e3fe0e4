"""What others wrote, made fit to be read: without what drives a terminal or can't be seen."""

from __future__ import annotations

import re

_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?")


def clean(text: str) -> str:
    """Without colours, control characters and what is invisible, so that it reads as it is."""
    text = _ANSI.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    text = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(char for char in text if char in "\n\t" or char.isprintable())


def one_line(text: str, characters: int) -> str:
    """Everything on one line, cut."""
    line = " ".join(clean(text).split())
    return line if len(line) <= characters else line[: max(0, characters - 4)] + " ..."


def valid(text: str) -> str:
    """`text` with lone surrogates, which JSON and command lines can spell, replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
