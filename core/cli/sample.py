"""`autoresearch sample`: prints text from a kept or exported model."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from pathlib import Path
from typing import Annotated

from typer import Option

from core.cli import resolve
from core.cli.options import AsJson, CampaignArgument, CampaignDir, ExperimentNumber, NoSandbox, interruptible
from core.cli.render import terminal


def sample(
    folder: CampaignArgument = None,
    option: CampaignDir = None,
    prompt: Annotated[str, Option(metavar="TEXT", help="the beginning of the text")] = "",
    length: Annotated[int, Option(metavar="N", help="tokens to generate")] = 200,
    temperature: Annotated[float, Option(metavar="X", help="0 always takes the likeliest token")] = 0.8,
    seed: Annotated[int, Option(metavar="N", help="the random seed; the same seed gives the same text")] = 0,
    number: ExperimentNumber = None,
    model: Annotated[
        Path | None, Option(metavar="FOLDER", help="a model that `export` wrote, instead of a campaign's")
    ] = None,
    no_sandbox: NoSandbox = False,
    as_json: AsJson = False,
) -> None:
    """Generate text from a kept model.

    The model is the campaign's champion, another kept experiment's, or an exported one.
    """
    from core.campaign import models
    from core.trial.sampling import SamplingParams, generate

    params = SamplingParams(temperature=temperature, length=length, seed=seed)
    with contextlib.ExitStack() as stack:
        if model is not None:
            tokenizer, opened = models.open_exported(model)
        else:
            campaign = stack.enter_context(resolve.campaign_of(folder, option))
            tokenizer = resolve.dataset_of(campaign.preset).tokenizer
            opened = models.open_kept(campaign, campaign.champion if number is None else campaign.experiment(number))
        with interruptible("run the same command to start again"), opened as ready:
            pieces = generate(ready, tokenizer, prompt, params)
            if as_json:
                terminal.json_text({"prompt": prompt, "text": "".join(pieces), **dataclasses.asdict(params)})
                return
            sys.stdout.write(prompt)
            for piece in pieces:
                terminal.write(piece)
                sys.stdout.flush()
            sys.stdout.write("\n")
