"""Text that UTF-8 can hold."""

from __future__ import annotations


def valid(text: str) -> str:
    """`text` with lone surrogates, which JSON and command lines can spell, replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
