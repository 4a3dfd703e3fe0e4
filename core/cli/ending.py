"""How `run` ends, whatever ended it: a limit, Ctrl-C, the agent, an error after some experiments.

It shows the experiments, the champion, text from its model, the picture and what to type next.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from core.cli import resolve
from core.cli.options import to_type
from core.cli.render import terminal
from core.records import Experiment, UserError
from core.system.text import bpb

if TYPE_CHECKING:
    from core.campaign.campaign import Campaign

# Of a longer campaign the summary lists what was kept and the last few.
ALL, LAST = 40, 10
DEMO = "demo"  # the preset of a first evening
PROMPT, SAMPLE_TOKENS = "The ", 120


def show(campaign: Campaign, *, samples: bool = True) -> None:
    """Prints how the campaign stands. `samples` are left out where the process should end soon."""
    _experiments(campaign)
    _standing(campaign)
    if samples and campaign.ledger.champion() is not None:
        _samples(campaign)
    _picture(campaign)
    _what_next(campaign)


def _experiments(campaign: Campaign) -> None:
    from core.cli.render import tables

    console = terminal.out()
    count = len(campaign)
    console.print()
    if count == 0:
        return
    beliefs = campaign.believes
    tables.emit(console, tables.header(console.width, beliefs=beliefs))
    for record in campaign.experiments():
        if count <= ALL or record.verdict == "keep" or record.number >= count - LAST:
            tables.emit(console, tables.row(record, console.width, beliefs=beliefs))
    if count > ALL:
        console.print(f"what was kept and the last {LAST} of {count}; all of them: autoresearch log", style="dim")
    console.print()


def _standing(campaign: Campaign) -> None:
    from core.cli.render import tables

    terminal.out().print(tables.status(campaign.status(), campaign.ledger.champion(), str(campaign.root)))


def _samples(campaign: Campaign) -> None:
    """The same prompt continued by the baseline's model and the champion's; a notice for one that can't be opened."""
    champion = campaign.champion
    texts = [(f"text from experiment {champion.number}", champion)]
    if champion.number > 0:
        texts = [("text before, from the baseline's model", campaign.ledger.believed(campaign.experiment(0))),
                 (f"text after, from experiment {champion.number}", champion)]  # fmt: skip
    for title, experiment in texts:
        score = bpb(experiment.val_bpb, experiment.deviation)
        terminal.out().print(f"\n{title} ({score} bpb):", style="bold", highlight=False)
        try:
            terminal.write(f"{_continued(campaign, experiment)}\n")
        except UserError as error:
            terminal.notice(f"no sample: {error}")
    sys.stdout.write("\n")


def _continued(campaign: Campaign, experiment: Experiment) -> str:
    """The prompt with what the experiment's model writes after it."""
    from core.campaign.models import open_kept
    from core.trial.sampling import SamplingParams, generate

    tokenizer = resolve.dataset_of(campaign.preset).tokenizer
    with open_kept(campaign, experiment) as model:
        return PROMPT + "".join(generate(model, tokenizer, PROMPT, SamplingParams(length=SAMPLE_TOKENS)))


def _picture(campaign: Campaign) -> None:
    from core.cli.render import plots

    picture = campaign.root / "progress.png"
    if not picture.exists() and len(campaign) > 0:
        plots.campaign_progress(campaign)
    if picture.exists():
        terminal.say(f"plot: {picture}")


def _what_next(campaign: Campaign) -> None:
    champion = campaign.ledger.champion()
    commands = []
    if champion is not None and champion.number > 0:
        confirmed = campaign.confirmation()
        if confirmed is None or confirmed.champion != champion.number:
            commands.append((to_type("confirm", campaign.root), "measures the gain again with fresh seeds"))
        else:
            commands.append((to_type("export", campaign.root, "model"), "writes the model to a folder of its own"))
    if champion is not None and campaign.preset.name == DEMO:
        commands.append(
            (to_type("run", "night", "--preset", "auto", "--hours", "8"), "a night with this machine's sizes")
        )
    width = max((len(command) for command, _ in commands), default=0)
    for command, meaning in commands:
        terminal.say(f"next: {command:{width}}   {meaning}")
