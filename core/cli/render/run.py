"""What `run` shows: a row as each experiment ends, progress.png, and a summary at the end."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from core.cli.render import plots, tables, terminal
from core.cli.render.presets import doubts
from core.records import Experiment, UserError
from core.system.files import disk_full_as_user_error
from core.trial.sampling import Taste

if TYPE_CHECKING:
    from core.campaign.campaign import Campaign
    from core.events import Judged

# Of a longer campaign the summary lists what was kept and the last few.
ALL, LAST = 40, 10
PROMPT, SAMPLE_TOKENS = "The ", 120


class Rows:
    """Prints each experiment as it ends, and draws progress.png where one was kept."""

    def __init__(self, campaign: Campaign, as_json: bool) -> None:
        self._campaign = campaign
        self._as_json = as_json
        self._console = terminal.out()
        self._ended = 0
        self._stale = False

    def __call__(self, judged: Judged) -> None:
        experiment = judged.experiment
        if self._as_json:
            terminal.json_line(terminal.with_gain(experiment))
        else:
            if self._ended == 0:
                tables.emit(self._console, tables.header())
            tables.emit(self._console, tables.row(experiment))
        if experiment.number == 0 and experiment.trials:
            for doubt in doubts(experiment.trials[0]):
                terminal.notice(f"doubt about preset {self._campaign.preset.name}: {doubt}")
        self._ended += 1
        self._stale = True
        if experiment.verdict == "keep" and experiment.number > 0:
            self.plot()

    def plot(self) -> None:
        """Draws what the last picture doesn't show yet."""
        if self._stale:
            draw(self._campaign)
            self._stale = False


def draw(campaign: Campaign) -> None:
    """progress.png in the campaign's folder."""
    with disk_full_as_user_error(campaign.root):
        _draw(campaign)


def _draw(campaign: Campaign) -> None:
    # The spread's band needs the baseline's trials, and nothing needs the others'.
    records = [*campaign.experiments(0, 1), *campaign.experiments(1, trials=False)]
    plots.progress(records, campaign.root / "progress.png", campaign.root.name)


def summary(campaign: Campaign, write: Callable[[Campaign, Experiment, str, Taste], str]) -> None:
    """What a run ends with: the experiments, the champion against the baseline, its text, and the picture's path.

    `write` continues a prompt with the model of an experiment, and may raise a UserError.
    """
    console = terminal.out()
    console.print()
    tables.emit(console, tables.header())
    records = campaign.experiments()
    for record in _worth_listing(records):
        tables.emit(console, tables.row(record))
    if len(records) > ALL:
        console.print(
            f"what was kept and the last {LAST} of {len(records)}; all of them: autoresearch log", style="dim"
        )
    console.print()
    champion = campaign.champion
    console.print(tables.status(dataclasses.asdict(campaign.status()), champion, str(campaign.root)))
    console.print(f"\ntext from experiment {champion.number}:", style="bold")
    try:
        text = write(campaign, champion, PROMPT, Taste(length=SAMPLE_TOKENS))
        sys.stdout.write(f"{PROMPT}{text}\n\n")
    except UserError as error:
        terminal.notice(f"no sample: {error}")
    picture = campaign.root / "progress.png"
    if not picture.exists():
        draw(campaign)
    terminal.say(f"plot: {picture}")


def _worth_listing(records: list[Experiment]) -> list[Experiment]:
    if len(records) <= ALL:
        return records
    return [record for record in records if record.verdict == "keep" or record.number > records[-1].number - LAST]
