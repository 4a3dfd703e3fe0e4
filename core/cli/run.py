"""`autoresearch run`: a campaign with whichever agent proposes, until a limit or Ctrl-C."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from core.cli import resolve
from core.cli.options import (
    AsJson,
    BudgetSeconds,
    Corpus,
    Device,
    NoSandbox,
    PresetName,
    Settings,
    all_of,
    interruptible,
    same_command,
)
from core.cli.render import terminal
from core.cli.resolve import Asked
from core.records import UserError


def run(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="made if missing; without it, the campaign around here")
    ] = None,
    preset: PresetName = None,
    device: Device = None,
    settings: Settings = None,
    corpus: Corpus = None,
    budget: BudgetSeconds = None,
    agent: Annotated[
        str, typer.Option(metavar="NAME", help="who proposes: search, api, command, hybrid, replay")
    ] = "search",
    experiments: Annotated[int | None, typer.Option(metavar="N", help="add so many, then stop")] = None,
    hours: Annotated[float | None, typer.Option(metavar="HOURS", help="start nothing new after so long")] = None,
    max_cost: Annotated[float | None, typer.Option(metavar="USD", help="model: what this run may spend")] = None,
    max_tokens: Annotated[int | None, typer.Option(metavar="N", help="model: all tokens that this run may use")] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="model: without it, the provider's default")] = None,
    provider: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="model: anthropic, or openai for whatever speaks that"),
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="model: another server than the provider's")
    ] = None,
    effort: Annotated[str | None, typer.Option(metavar="LEVEL", help="model: low, medium, high, xhigh or max")] = None,
    thinking_budget: Annotated[
        int | None,
        typer.Option(metavar="TOKENS", help="model: for one that thinks by a budget"),
    ] = None,
    price: Annotated[
        str | None,
        typer.Option(metavar="PRICES", help='model: "IN OUT [READ [WRITE]]", USD a million tokens; "0 0": free'),
    ] = None,
    command: Annotated[
        str | None,
        typer.Option(metavar="WORDS", help='coding agent: such as "claude -p {prompt}"; no shell'),
    ] = None,
    command_env: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="coding agent: a variable that it gets; may be repeated"),
    ] = None,
    command_read: Annotated[
        list[Path] | None,
        typer.Option(metavar="PATH", help="coding agent: what else it may read; may be repeated"),
    ] = None,
    command_home: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="coding agent: its home, with its login; else an empty one"),
    ] = None,
    command_minutes: Annotated[
        float | None, typer.Option(metavar="MINUTES", help="coding agent: for one proposal")
    ] = None,
    lessons: Annotated[
        Path | None, typer.Option(metavar="FILE", help="lessons to share between campaigns; else lessons.md in DIR")
    ] = None,
    replay: Annotated[
        Path | None, typer.Option(metavar="DIR", help="--agent replay: the campaign that is run again")
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="of the search")] = None,
    agent_settings: Annotated[
        list[str] | None,
        typer.Option("--agent-set", metavar="KEY=VALUE", help="for an agent from another package; may be repeated"),
    ] = None,
    no_sandbox: NoSandbox = False,
    as_json: AsJson = False,
) -> None:
    """Run a campaign until a limit or Ctrl-C; resumes.

    The baseline comes first, then one experiment after the other. With --json each is a line of JSON as it ends.

    \b
      autoresearch run night --preset h100 --hours 8
      autoresearch run night                                goes on with it
      autoresearch run demo --preset cpu --budget 20 --experiments 8
      autoresearch run night --agent hybrid --max-cost 20 --hours 8
      autoresearch run night --agent command --command "claude -p {prompt}" --command-env ANTHROPIC_API_KEY
    """
    from core.agents import registry
    from core.cli.render.live import Follower
    from core.cli.render.run import Rows, summary

    options: dict[str, Any] = dict(
        max_cost=max_cost,
        max_tokens=max_tokens,
        model=model,
        provider=provider,
        endpoint=endpoint,
        effort=effort,
        thinking_budget=thinking_budget,
        price=price,
        command=command,
        command_env=tuple(command_env or ()),
        command_read=tuple(command_read or ()),
        command_home=command_home,
        command_minutes=command_minutes,
        lessons=lessons,
        replay=replay,
        seed=seed,
    )
    proposing = registry.make(agent, **_given(options), **_pairs(agent_settings or (), options))
    campaign = resolve.make_or_open(
        folder,
        Asked(preset=preset, device=device, settings=all_of(settings), corpus=corpus, budget=budget),
        like=replay,
    )
    rows = Rows(campaign, as_json)
    follower = Follower(terminal.err(), rows)
    with campaign, interruptible(f"`{same_command()}` goes on from here"):
        try:
            campaign.run(proposing, experiments=experiments, hours=hours, on_event=follower)
        finally:
            follower.close()
            rows.plot()
        if not as_json:
            summary(campaign, resolve.text_from)


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those that were given: an agent knows its own defaults, and refuses what it does not take."""
    return {name: value for name, value in options.items() if value is not None and value != ()}


def _pairs(settings: Sequence[str], own: Mapping[str, Any]) -> dict[str, str]:
    """What `--agent-set` says. Raises UserError for no pair, a key given twice, and one that has an option (`own`)."""
    pairs: dict[str, str] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not (name.isidentifier() and equals):
            raise UserError(f"--agent-set: expected KEY=VALUE, not {setting!r}")
        if name in own:
            raise UserError(f"--agent-set {name}: that has an option of its own, use --{name.replace('_', '-')}")
        if name in pairs:
            raise UserError(f"--agent-set {name}: given twice, as {pairs[name]!r} and {value!r}; leave one out")
        pairs[name] = value
    return pairs
