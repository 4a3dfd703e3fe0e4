"""`autoresearch show`: shows one experiment: what it changed, how its training went, what it printed."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Annotated

from rich.text import Text
from typer import Argument

from core.cli import completion, resolve
from core.cli.options import AsJson, CampaignDir, ExperimentWords, to_type
from core.cli.render import terminal
from core.cli.words import PARTS, split_words
from core.records import COMPARE, UserError, to_json
from core.store import trial_files
from core.system.text import clean

if TYPE_CHECKING:
    from rich.syntax import Syntax

    from core.store.trial_files import Point

CHART_WIDTH, CHART_HEIGHT, MARGIN = 100, 9, 10  # at most; a narrower terminal narrows it
BLOCKS = " ▁▂▃▄▅▆▇█"


def show(
    first: ExperimentWords = None,
    second: Annotated[
        str | None,
        Argument(
            metavar="N", help="the experiment's number; 0 is the baseline", autocompletion=completion.number_or_part
        ),
    ] = None,
    third: Annotated[
        str | None,
        Argument(
            metavar="PART",
            help="diff, hypothesis, curve, output or train.py; default: all but the output",
            autocompletion=completion.number_or_part,
        ),
    ] = None,
    option: CampaignDir = None,
    as_json: AsJson = False,
) -> None:
    """Show one experiment, or one part of it.

    Without PART: the verdict, the diff, the loss curve and each trial's results.

    \b
      autoresearch show 3
      autoresearch show night 3 train.py
    """
    from core.cli.render import tables

    folder, number, part = split_words([word for word in (first, second, third) if word is not None], PARTS)
    with resolve.campaign_of(folder, option) as campaign:
        if number is None:
            example = to_type("show", *([str(folder)] if folder else []), "3")
            raise UserError(
                f"say which experiment, as in {example}; {len(campaign)} are recorded, from 0, the baseline"
            )
        experiment = campaign.experiment(number)
        trials = trial_files.trials(campaign.folder(number))
        curves = [trial_files.points(trial) for trial in trials]
        diff = campaign.diff(number)
        trainer = campaign.trainer_text(experiment.commit) if part == "train.py" else ""
        compared = campaign.ledger.measurements(COMPARE, number)
    if as_json:
        outputs = [trial_files.printed(trial) for trial in trials]
        terminal.json_text(
            {
                **terminal.with_gain(experiment),
                "diff": diff,
                "curves": curves,
                "outputs": outputs,
                "compared": [to_json(one) for one in compared],
            }
        )
        return
    plain = {"diff": diff, "hypothesis": experiment.hypothesis, "train.py": trainer}
    console = terminal.out()
    if part in plain and not (part == "diff" and console.is_terminal):
        terminal.write(plain[part].rstrip("\n") + "\n")
        return
    if not part:
        console.print(tables.verdict(experiment))
    if part in ("", "diff"):
        console.print(_coloured(diff))
    for index, (trial, curve) in enumerate(zip(trials, curves, strict=True)):
        if part in ("", "curve"):
            recorded = index < len(experiment.trials)
            terminal.say(f"trial {index}, seed {experiment.trials[index].seed}" if recorded else "trial")
            console.print(chart(curve, console.width))
        if part == "output":
            terminal.write(trial_files.printed(trial))
    if not part:
        for record in experiment.trials:
            console.print(tables.trial(record))
        for one in compared:
            console.print(tables.measured(one))
        words = [*([str(folder)] if folder else []), str(number), "output"]
        terminal.notice(f"the trials' output: {to_type('show', *words)}")


def _coloured(text: str) -> Syntax | Text:
    """A unified diff in colours."""
    from rich.syntax import Syntax

    if not text.strip():
        return Text("nothing: this is the baseline", style="bright_black")
    return Syntax(clean(text), "diff", background_color="default", word_wrap=True)


def chart(curve: Sequence[Point], width: int = CHART_WIDTH + MARGIN) -> Text:
    """The loss over the budget in `width` columns, left to right, as blocks; its ends and its lowest as numbers."""
    if not curve:
        return Text("no loss was reported", style="bright_black")
    columns = max(1, min(CHART_WIDTH, width - MARGIN, len(curve)))
    groups = (curve[len(curve) * at // columns : len(curve) * (at + 1) // columns] for at in range(columns))
    means = [fmean(point["loss"] for point in group) for group in groups]
    # The first losses of a model that knows nothing would flatten all that follows.
    low, high = min(means), max(means[1:] or means)
    reach = (high - low) or 1.0
    heights = [(mean - low) / reach * (CHART_HEIGHT * 8 - 1) + 1 for mean in means]
    chart = Text(no_wrap=True)
    for line in range(CHART_HEIGHT - 1, -1, -1):
        mark = f"{high:9.3f} " if line == CHART_HEIGHT - 1 else f"{low:9.3f} " if line == 0 else " " * MARGIN
        chart.append(mark, style="bright_black")
        chart.append("".join(BLOCKS[min(8, max(0, round(height - 8 * line)))] for height in heights) + "\n", "green")
    last = curve[-1]
    caption = f"loss in nats a token: {last['loss']:.4f} at step {last['step']:.0f}, after {last['seconds']:.1f} s"
    return chart.append(caption.rjust(min(width, MARGIN + len(caption))), style="bright_black")
