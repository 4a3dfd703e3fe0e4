"""`autoresearch transcript`: shows what a model thought and did to make a proposal."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from core.cli import completion, resolve
from core.cli.options import AsJson, CampaignDir, ExperimentWords, interruptible
from core.cli.render import terminal
from core.cli.words import split_words
from core.records import UserError

if TYPE_CHECKING:
    from core.campaign.campaign import Campaign

POLL_SECONDS = 0.3


def transcript(
    first: ExperimentWords = None,
    second: Annotated[
        str | None,
        Argument(
            metavar="N", help="the experiment; default: the newest proposal", autocompletion=completion.number_or_part
        ),
    ] = None,
    follow: Annotated[
        bool, Option("--follow", "-f", help="keep printing new text, also of later proposals, until Ctrl-C")
    ] = False,
    option: CampaignDir = None,
    as_json: AsJson = False,
) -> None:
    """Show what a model thought and did to propose an experiment.

    \b
      autoresearch transcript 12
      autoresearch transcript --follow       watch a run from another terminal
    """
    folder, number, _ = split_words([word for word in (first, second) if word is not None])
    with resolve.campaign_of(folder, option) as campaign:
        if as_json:
            found = _found(campaign, number)
            terminal.json_text({"experiment": int(found.stem), "path": str(found), "text": _text(found)})
            return
        if not follow:
            terminal.write(_text(_found(campaign, number)))
            return
        with interruptible("`autoresearch run` continues"):
            _follow(campaign, number)


def _found(campaign: Campaign, number: int | None) -> Path:
    files = campaign.transcripts()
    if not files:
        raise UserError(
            f"no model has worked on {campaign.root} yet; start one with: autoresearch run {campaign.root} --agent api"
        )
    if number is None:
        return files[-1]
    there = {int(path.stem): path for path in files}
    if number not in there:
        raise UserError(f"no model worked on experiment {number}; there are transcripts of {_ranges(sorted(there))}")
    return there[number]


def _follow(campaign: Campaign, number: int | None) -> None:
    """Prints the proposal's transcript, what is added to it, and then those of later proposals. Never returns."""
    at = -1 if number is None else number - 1
    if number is None and (files := campaign.transcripts()):
        at = int(files[-1].stem) - 1
    shown = 0
    path: Path | None = None
    while True:
        following = next((one for one in campaign.transcripts() if int(one.stem) > at), None)
        if path is not None:
            with path.open("rb") as file:
                file.seek(shown)
                new = file.read()
            shown += len(new)
            sys.stdout.write(new.decode("utf-8", "replace"))
            sys.stdout.flush()
        if following is not None and following != path:
            path, shown, at = following, 0, int(following.stem)
            continue
        time.sleep(POLL_SECONDS)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _ranges(numbers: list[int]) -> str:
    """1 to 3, 7, 9 to 12."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
