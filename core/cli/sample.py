"""`autoresearch sample`: text from a model."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import typer

from core.cli import resolve
from core.cli.options import AsJson, Folder, NoSandbox, Number, interruptible
from core.cli.render import terminal


def sample(
    prompt: Annotated[str, typer.Option(metavar="TEXT", help="what the text starts with")] = "",
    length: Annotated[int, typer.Option(metavar="N", help="in tokens")] = 200,
    temperature: Annotated[float, typer.Option(metavar="X", help="0 takes the likeliest token every time")] = 0.8,
    seed: Annotated[int, typer.Option(metavar="N", help="the same seed, the same text")] = 0,
    number: Number = None,
    model: Annotated[Path | None, typer.Option(metavar="FOLDER", help="a model that `export` wrote")] = None,
    folder: Folder = None,
    no_sandbox: NoSandbox = False,
    as_json: AsJson = False,
) -> None:
    """Let a kept model write text.

    The campaign's champion, another kept experiment's, or an exported one.
    """
    from core.trial.sampling import Taste, generate

    taste = Taste(temperature=temperature, length=length, seed=seed)
    with contextlib.ExitStack() as stack:
        if model is not None:
            tokenizer, opened = resolve.exported_model(model)
        else:
            campaign = stack.enter_context(resolve.campaign_of(folder))
            tokenizer = resolve.dataset_of(campaign.preset).tokenizer
            opened = resolve.model_of(campaign, campaign.champion if number is None else campaign.experiment(number))
        with interruptible("the same command starts again"), opened as ready:
            pieces = generate(ready, tokenizer, prompt, taste)
            if as_json:
                terminal.json_text({"prompt": prompt, "text": "".join(pieces), **dataclasses.asdict(taste)})
                return
            sys.stdout.write(prompt)
            for piece in pieces:
                sys.stdout.write(piece)
                sys.stdout.flush()
            sys.stdout.write("\n")
