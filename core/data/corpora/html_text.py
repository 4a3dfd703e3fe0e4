"""The HTML of API models as plain text. Knows the tags that such models use; anything else in angle brackets is text.

Regular expressions rather than the standard library's parser, whose reading of broken markup changes between Python
versions: the text is part of a yardstick and must not.
"""

from __future__ import annotations

import html
import re

_INLINE = frozenset(
    "a abbr accessibility b code em emphasis filename function i literal link replaceable small span strong sub sup "
    "title type u ulink uri userinput var xhtml".split()
)
_BLOCKS = frozenset(
    "article blockquote body caption caution dd div dl dt fullname h1 h2 h3 h4 h5 h6 head hr html important li note ol "
    "p para pre programlisting section shortdesc simpara table tbody text tfoot thead tip tr ul warning zonbook".split()
)
_CELLS = frozenset(("td", "th"))
_ITEMS = frozenset(("li", "dt", "dd"))
_LISTS = frozenset(("ul", "ol", "dl"))
_VERBATIM = frozenset(("pre", "programlisting"))
_NOTICES = {
    "note": "Note: ",
    "important": "Important: ",
    "caution": "Caution: ",
    "tip": "Tip: ",
    "warning": "Warning: ",
}
_MARKUP = re.compile(r"<!--.*?-->|<(/?)([A-Za-z][A-Za-z0-9]*)((?:\s[^<>]*)?)(/?)>", re.DOTALL)
# What is neither text nor a line's end, by code point: controls, zero-width marks, the byte order mark.
_INVISIBLE: dict[int, None] = dict.fromkeys(
    (*range(9), *range(14, 32), *range(127, 160), 0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF)
)
_LINE_ENDS = {0x0B: "\n", 0x0C: "\n", 0x85: "\n", 0x2028: "\n", 0x2029: "\n"}
_CHARACTERS = {**_INVISIBLE, **_LINE_ENDS}


class _Text:
    """The text so far: complete lines, the words of the line being written, and the lists around it."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.words: list[str] = []
        self.lists: list[int | None] = []  # a counter for each list around; None: bullets or definitions
        self.level = 0  # of indentation
        self.marker = ""  # of the list item that the next line opens
        self.notice = ""  # what the next line begins with
        self.verbatim = 0
        self.apart = False  # a blank line comes before the next line

    def end_line(self) -> None:
        text = "".join(self.words)
        self.words.clear()
        text = _verbatim(text) if self.verbatim else _flowing(text)
        if not text:
            return
        margin = "  " * self.level
        opening = "  " * (self.level - 1) + self.marker if self.marker else margin
        if self.lines:
            self.lines.append("\n\n" if self.apart and not self.level else "\n")
        if text.lower().startswith(self.notice.lower().rstrip(": ")):
            self.notice = ""  # it says so itself
        self.lines.append(opening + self.notice + text.replace("\n", "\n" + margin))
        self.marker = self.notice = ""
        self.apart = False


def plain_text(markup: str) -> str:
    """`markup` without tags and entities: paragraphs apart by a blank line, list items marked, spaces sane."""
    text = _Text()
    end = 0
    for found in _MARKUP.finditer(markup):
        closing, name, attributes, empty = found.groups()
        name = (name or "").lower()
        if name and name not in _INLINE and name not in _BLOCKS and name not in _CELLS and name != "br":
            continue  # a placeholder such as <region>
        text.words.append(markup[end : found.start()])
        end = found.end()
        if name in _BLOCKS:
            _at_block(text, name, bool(closing), bool(empty or attributes.endswith("/")))
        elif name == "br":
            text.end_line()
        elif name in _CELLS:
            text.words.append(" ")
    text.words.append(markup[end:])
    text.end_line()
    return "".join(text.lines)


def _at_block(text: _Text, name: str, closing: bool, empty: bool) -> None:
    text.end_line()
    text.apart = True
    if empty:
        return
    if name in _VERBATIM:
        text.verbatim = max(0, text.verbatim + (-1 if closing else 1))
    elif name in _LISTS:
        if not closing:
            text.lists.append(0 if name == "ol" else None)
            text.apart = False
        elif text.lists:
            text.lists.pop()
        text.level = len(text.lists)
        text.marker = ""
    elif name in _ITEMS:
        text.marker = "" if closing or name != "li" else _marker(text.lists)
        text.level = (
            len(text.lists) if closing else max(0, len(text.lists) - 1) if name == "dt" else len(text.lists) or 1
        )
        text.apart = False
    elif name in _NOTICES:
        text.notice = "" if closing else _NOTICES[name]


def _marker(lists: list[int | None]) -> str:
    if not lists or (count := lists[-1]) is None:
        return "- "
    lists[-1] = count + 1
    return f"{count + 1}. "


def _flowing(text: str) -> str:
    text = " ".join(html.unescape(text).translate(_CHARACTERS).split())
    # Models put spaces around the tags within a sentence: "see <a>X</a> ." and "( <code>Y</code> )".
    text = re.sub(r" ([.,;:!?)\]])(?=\s|$|[.,;:)\]])", r"\1", text)
    return re.sub(r"(?<=[(\[]) (?=\S)", "", text)


def _verbatim(text: str) -> str:
    text = html.unescape(text).translate(_CHARACTERS).expandtabs(4)
    lines = "\n".join(line.rstrip() for line in text.split("\n")).strip("\n").split("\n")
    margin = min((len(line) - len(line.lstrip()) for line in lines if line), default=0)
    return "\n".join(line[margin:] for line in lines)
