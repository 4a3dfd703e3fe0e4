"""`autoresearch export`: writes a kept model to a folder of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument

from core.cli import resolve
from core.cli.options import AsJson, CampaignArgument, CampaignDir, ExperimentNumber
from core.cli.render import terminal
from core.records import UserError


def export(
    folder: CampaignArgument = None,
    into: Annotated[Path | None, Argument(metavar="FOLDER", help="a new folder for the model")] = None,
    number: ExperimentNumber = None,
    option: CampaignDir = None,
    as_json: AsJson = False,
) -> None:
    """Write a kept model to a folder of its own.

    The folder has the weights, train.py, facts, tokenizer, preset, results.tsv and a README.

    \b
      autoresearch export model
      autoresearch export night model -e 7
    """
    from core.campaign.models import export as write

    if into is None:  # of one word it is the model's
        folder, into = None, folder
    if into is None:
        raise UserError("say where to, as in autoresearch export model: a new folder for the model")
    with resolve.campaign_of(folder, option) as campaign:
        experiment = campaign.champion if number is None else campaign.experiment(number)
        write(campaign, experiment, resolve.dataset_of(campaign.preset).tokenizer, into)
    if as_json:
        terminal.json_text(
            {"folder": str(into.absolute()), "experiment": experiment.number, "val_bpb": experiment.val_bpb}
        )
    else:
        terminal.say(f"experiment {experiment.number} is in {into}")
