"""One experiment in full: what it changed, how its training went, what it printed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.syntax import Syntax
from rich.text import Text

from core.store.trial_files import Point

CHART_WIDTH, CHART_HEIGHT = 72, 9
BLOCKS = " ▁▂▃▄▅▆▇█"


def diff(text: str) -> Syntax | Text:
    """A unified diff in colours."""
    if not text.strip():
        return Text("nothing: this is the baseline", style="bright_black")
    return Syntax(text, "diff", background_color="default", word_wrap=True)


def chart(curve: Sequence[Point]) -> Text:
    """The loss over the budget, left to right, as blocks; its ends and its lowest as numbers."""
    if not curve:
        return Text("no loss was reported", style="bright_black")
    means = list(_means(curve))
    # The first losses of a model that knows nothing would flatten all that follows.
    low, high = min(means), max(means[1:] or means)
    reach = (high - low) or 1.0
    heights = [(mean - low) / reach * (CHART_HEIGHT * 8 - 1) + 1 for mean in means]
    chart = Text()
    for line in range(CHART_HEIGHT - 1, -1, -1):
        mark = f"{high:9.3f} " if line == CHART_HEIGHT - 1 else f"{low:9.3f} " if line == 0 else " " * 10
        chart.append(mark, style="bright_black")
        chart.append("".join(BLOCKS[min(8, max(0, round(height - 8 * line)))] for height in heights) + "\n", "green")
    last = curve[-1]
    told = f"{'':10}loss in nats a token; the last is {last['loss']:.4f} at step {last['step']:.0f}"
    return chart.append(f"{told}, {last['seconds']:.1f} s", style="bright_black")


def _means(curve: Sequence[Point]) -> Iterator[float]:
    """Means of the loss over as many equal runs of points as there are columns."""
    columns = min(CHART_WIDTH, len(curve))
    sums, counts = [0.0] * columns, [0] * columns
    for index, point in enumerate(curve):
        column = index * columns // len(curve)
        sums[column] += point["loss"]
        counts[column] += 1
    for total, number in zip(sums, counts, strict=True):
        yield total / number
