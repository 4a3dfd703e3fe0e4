"""`autoresearch export`: writes a kept model to a folder of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument

from core.cli import resolve
from core.cli.options import AsJson, CampaignDir, ExperimentNumber
from core.cli.render import terminal


def export(
    into: Annotated[Path, Argument(metavar="FOLDER", help="a new folder for the model")],
    number: ExperimentNumber = None,
    folder: CampaignDir = None,
    as_json: AsJson = False,
) -> None:
    """Write a kept model to a folder of its own.

    The folder has the weights, train.py, facts, tokenizer, preset, results.tsv and a README.
    """
    from core.campaign.models import export as write

    with resolve.campaign_of(folder) as campaign:
        experiment = campaign.champion if number is None else campaign.experiment(number)
        write(campaign, experiment, resolve.dataset_of(campaign.preset).tokenizer, into)
    if as_json:
        terminal.json_text(
            {"folder": str(into.absolute()), "experiment": experiment.number, "val_bpb": experiment.val_bpb}
        )
    else:
        terminal.say(f"experiment {experiment.number} is in {into}")
