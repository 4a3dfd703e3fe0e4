"""`autoresearch run`: a campaign with whichever agent proposes, until a limit or Ctrl-C."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
from core.records import Experiment, UserError

if TYPE_CHECKING:
    from core.campaign.campaign import Campaign
    from core.events import Judged

# Of a longer campaign the summary lists what was kept and the last few.
ALL, LAST = 40, 10
PROMPT, SAMPLE_TOKENS = "The ", 120


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
    rows = _Rows(campaign, as_json)
    with campaign, interruptible(f"`{same_command()}` goes on from here"):
        try:
            with Follower(terminal.err(), rows) as follower:
                campaign.run(proposing, experiments=experiments, hours=hours, on_event=follower)
        finally:
            rows.plot()
        if not as_json:
            _summary(campaign)


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


class _Rows:
    """Prints each experiment as it ends, and draws progress.png where one was kept."""

    def __init__(self, campaign: Campaign, as_json: bool) -> None:
        self._campaign = campaign
        self._as_json = as_json
        self._console = terminal.out()
        self._ended = 0
        self._stale = False

    def __call__(self, judged: Judged) -> None:
        experiment = judged.experiment
        from core.cli.presets import doubts
        from core.cli.render import tables

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
        from core.cli.render import plots

        if self._stale:
            plots.campaign_progress(self._campaign)
            self._stale = False


def _summary(campaign: Campaign) -> None:
    """What a run ends with: the experiments, the champion against the baseline, its text, and the picture's path."""
    from core.cli.render import plots, tables
    from core.trial.sampling import Taste

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
        text = resolve.text_from(campaign, champion, PROMPT, Taste(length=SAMPLE_TOKENS))
        sys.stdout.write(f"{PROMPT}{text}\n\n")
    except UserError as error:
        terminal.notice(f"no sample: {error}")
    picture = campaign.root / "progress.png"
    if not picture.exists():
        plots.campaign_progress(campaign)
    terminal.say(f"plot: {picture}")


def _worth_listing(records: list[Experiment]) -> list[Experiment]:
    if len(records) <= ALL:
        return records
    return [record for record in records if record.verdict == "keep" or record.number > records[-1].number - LAST]
