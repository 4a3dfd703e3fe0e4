"""`autoresearch transfer`: how much of a campaign's gain carries over to another scale."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from core.campaign.transfer import DEFAULT_SEEDS, scaled_preset
from core.cli import completion, resolve
from core.cli.options import (
    CRASHED,
    AsJson,
    BudgetSeconds,
    CampaignArgument,
    CampaignDir,
    CorpusName,
    NoSandbox,
    PresetName,
    PresetSettings,
    TrainingDevice,
    interruptible,
)
from core.cli.render import terminal
from core.cli.resolve import PresetOptions
from core.system.text import bpb, gain, one_line

if TYPE_CHECKING:
    from rich.console import Group, RenderableType

    from core.campaign.transfer import Transfer


def transfer(
    folder: CampaignArgument = None,
    option: CampaignDir = None,
    depth: Annotated[
        int | None, Option(metavar="N", min=1, help="layers; what follows from the depth follows it")
    ] = None,
    preset: PresetName = None,
    backend: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="another framework, to which only constants can carry",
            autocompletion=completion.backends,
        ),
    ] = None,
    device: TrainingDevice = None,
    settings: PresetSettings = None,
    corpus: CorpusName = None,
    budget: BudgetSeconds = None,
    seeds: Annotated[int, Option(metavar="N", help="how many unused seeds; each takes two trials")] = DEFAULT_SEEDS,
    no_sandbox: NoSandbox = False,
    as_json: AsJson = False,
) -> None:
    """Measure baseline and champion at another scale: how much of the gain carries over.

    The campaign's edits of code and constants are carried to the trainer of that scale; where both change a constant,
    the edit is carried in proportion. Scores are on the campaign's own text, unless --corpus or --set names another.
    Every trial is recorded, in the campaign and beside its experiments: after Ctrl-C the same command continues, and a
    higher number of seeds adds to the results. The exit status is 1 if no pair of trials was completed.

    \b
      autoresearch transfer night --depth 8
      autoresearch transfer night --preset h100 --seeds 4
      autoresearch transfer night --backend jax
    """
    from core.cli.render.live import Follower
    from core.measure.compare import on_backend

    options = PresetOptions(preset=preset, device=device, settings=settings, corpus=corpus, budget=budget)
    changes = options.changes() | ({} if depth is None else {"depth": str(depth)})
    stopping = interruptible("the same command continues from here")
    with resolve.campaign_of(folder, option) as campaign, stopping, Follower(terminal.err()) as follower:
        other = None if preset is None else resolve.preset_for(PresetOptions(preset=preset))
        if backend is not None:
            other = on_backend(other or campaign.preset, backend, device, terminal.notice)
        new = scaled_preset(campaign.preset, other, changes)
        resolve.require(new)
        found = campaign.transfer(new, seeds, follower)
    if as_json:
        terminal.json_text(dataclasses.asdict(found))
    else:
        console = terminal.out()
        console.print(_report(found, console.width))
    if not found.pairs:
        raise typer.Exit(CRASHED)


def _report(one: Transfer, width: int) -> Group:
    """All of it for a person: what differs, a row a seed, the gains with their intervals, and what they mean."""
    from rich.console import Group
    from rich.text import Text

    scale = ", ".join(f"{name} {here} -> {there}" for name, (here, there) in one.scale.items())
    parts: list[RenderableType] = [
        Text(f"experiment {one.champion} ({one.commit[:9]}) against the baseline at another scale", style="bold"),
        Text(f"scale      {scale}"),
    ]
    parts += [Text(f"note: {note}") for note in one.notes]
    if one.pairs:
        parts.append(_table(one, width))
    parts += [Text(f"failed and left out: {one_line(failed)}", style="red") for failed in one.failed]
    parts += [Text(f"seed {seed} has run on one side only; the same command continues") for seed in one.unpaired]
    if one.gain is not None:
        there = f"{one.gain:.4f} on one seed" if one.interval is None else str(one.interval)
        here = f"{one.gain_here:.4f}" if one.gain_here_interval is None else str(one.gain_here_interval)
        parts += [
            Text(f"gain there {there}"),
            Text(f"gain here  {here} ({one.gain_here_from})"),
            Text(f"text       {_text(one)}"),
        ]
    if one.share is not None:
        bounds = "" if one.share_low is None else f" ({one.share_low:.0%} to {one.share_high:.0%} with 95 % confidence)"
        parts.append(Text(f"carried    {one.share:.0%}{bounds}"))
    parts.append(Text(one.conclusion, style="bold"))
    return Group(*parts)


def _text(one: Transfer) -> str:
    """Which of the scores compare."""
    here, there = one.vocabulary
    if not one.same_text:
        return "another one than the campaign's: gains compare in what they mean, scores don't"
    what = "the campaign's own"
    if here != there:
        what += f", with a vocabulary of {there} instead of {here}: bits per byte compare, losses a token don't"
    return what


def _table(one: Transfer, width: int) -> RenderableType:
    from core.cli.render.tables import Column, fitted

    rows = [(str(pair.seed), bpb(pair.baseline_bpb), bpb(pair.champion_bpb), gain(pair.gain)) for pair in one.pairs]
    return fitted([Column(name, right=True) for name in ("seed", "baseline", "champion", "gain")], rows, width)
