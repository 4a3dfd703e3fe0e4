"""`autoresearch export`: writes a kept model to a folder of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument

from core.cli import resolve
from core.cli.options import AsJson, CampaignArgument, CampaignDir, ExperimentNumber, NoSandbox, interruptible
from core.cli.render import terminal
from core.records import UserError
from core.system.files import refuse_occupied


def export(
    folder: CampaignArgument = None,
    into: Annotated[Path | None, Argument(metavar="FOLDER", help="a new folder for the model")] = None,
    number: ExperimentNumber = None,
    option: CampaignDir = None,
    no_sandbox: NoSandbox = False,
    as_json: AsJson = False,
) -> None:
    """Write a kept model to a folder of its own, for use without autoresearch.

    The folder has the weights (safetensors), model.py, which needs the framework alone, the tokenizer in Hugging Face's
    format, a README that says what to install, and train.py, facts, preset and results.tsv. The logits of model.py are
    compared with those of train.py.

    \b
      autoresearch export model
      autoresearch export night model -e 7
      cd model && pip install -r requirements.txt && python model.py --prompt "The"
    """
    from core.campaign.models import export as write

    if into is None:  # of one word it is the model's
        folder, into = None, folder
    if into is None:
        raise UserError("say where to, as in autoresearch export model: a new folder for the model")
    refuse_occupied(into, "a model")  # before a corpus is prepared for its tokenizer
    stopping = interruptible("nothing was written: run the command again")
    with resolve.campaign_of(folder, option) as campaign, stopping:
        experiment = campaign.champion if number is None else campaign.ledger.believed(campaign.experiment(number))
        warnings = write(campaign, experiment, resolve.dataset_of(campaign.preset).tokenizer, into)
    if as_json:
        found = {
            "folder": str(into.absolute()), "experiment": experiment.number,
            "val_bpb": experiment.val_bpb, "deviation": experiment.deviation,
        }  # fmt: skip
        terminal.json_text({**found, "files": sorted(path.name for path in into.iterdir()), "warnings": warnings})
        return
    terminal.say(f"experiment {experiment.number} is in {into}")
    for warning in warnings:
        terminal.notice(f"warning: {warning}")
