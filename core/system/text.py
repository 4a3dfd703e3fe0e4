"""Text for people: makes foreign text safe to show or store, and writes numbers in short.

A text that comes from outside (an agent, a trainer's output, a server, a file) is cleaned once, where it comes in.
"""

from __future__ import annotations

import re

NORMAL_95 = 1.96  # standard deviations to both sides of a normal mean that hold 95 % of it
# ECMA-48's control sequences and a terminal's operating system commands.
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b\n]*(?:\x07|\x1b\\)?|\x1b.")


def clean(text: str) -> str:
    """`text` without escape sequences, control and invisible characters, with "\n" line ends; valid UTF-8."""
    if text.isprintable():
        return text
    text = valid(_ESCAPES.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))
    return "".join(char for char in text if char in "\n\t" or char.isprintable())


def one_line(text: str, width: int = 0) -> str:
    """`text`, cleaned, on one line; cut to `width` characters with an ellipsis if a width is given."""
    line = " ".join(clean(text).split())
    return line if not width or len(line) <= width else line[: width - 1].rstrip() + "…"


def valid(text: str) -> str:
    """`text` with lone surrogates, which JSON and command lines can spell, replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def half_width(deviation: float | None) -> float | None:
    """How far to both sides of a mean the true value lies with a probability of 95 %, where its error is normal."""
    return None if deviation is None else NORMAL_95 * deviation


def bpb(value: float | None, deviation: float | None = None) -> str:
    """Bits per byte; of a belief, which has a standard deviation, with its 95 % interval: `1.7315 +- 0.0021`."""
    if value is None:
        return "-"
    return f"{value:.4f}" if deviation is None else f"{value:.4f} {interval(deviation)}"


def interval(deviation: float | None) -> str:
    """The 95 % interval around a mean: `+- 0.0021`."""
    return "-" if deviation is None else f"+- {half_width(deviation):.4f}"


def chance(probability: float | None) -> str:
    """A probability in whole percent, which never says that something is certain: `93 %`, `>99 %`, `<1 %`."""
    if probability is None:
        return "-"
    return "<1 %" if probability < 0.01 else ">99 %" if probability > 0.99 else f"{100 * probability:.0f} %"


def gain(value: float | None) -> str:
    """Bits per byte below the champion, with its sign: more is better."""
    return "-" if value is None else f"{value:+.4f}"


def seconds(value: float) -> str:
    """A duration in the largest unit that keeps it short: `0.3 s`, `42 s`, `7m 05s`, `3h 20m`."""
    if value < 9.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


def count(value: float | None) -> str:
    """A count with the letter of its thousands: `812`, `11.7K`, `50.3M`."""
    if value is None:
        return "-"
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "K")):
        if abs(value) >= size * 0.9995:
            return f"{value / size:.3g}{letter}" if abs(value) < 999.5 * size else f"{value / size:.0f}{letter}"
    return f"{value:.0f}"
