"""`autoresearch run`: runs a campaign with one agent until a limit or Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from core.cli import completion, ending, resolve
from core.cli.options import (
    AsJson,
    BudgetSeconds,
    CorpusName,
    NoSandbox,
    PresetName,
    PresetSettings,
    TrainingDevice,
    interruptible,
    parsed_hours,
    same_command,
)
from core.cli.render import terminal
from core.cli.resolve import PresetOptions
from core.records import PROGRAM, UserError
from core.store.program import Limits, Program

if TYPE_CHECKING:
    from core.campaign.campaign import Campaign
    from core.events import Judged


def run(
    folder: Annotated[
        Path | None,
        Argument(
            metavar="DIR",
            help="the folder, made if missing; default: the campaign here",
            autocompletion=completion.campaigns,
        ),
    ] = None,
    preset: PresetName = None,
    device: TrainingDevice = None,
    settings: PresetSettings = None,
    corpus: CorpusName = None,
    budget: BudgetSeconds = None,
    agent: Annotated[
        str,
        Option(
            metavar="NAME",
            help="who proposes changes: search, api, command, hybrid or replay",
            autocompletion=completion.agents,
        ),
    ] = "search",
    experiments: Annotated[int | None, Option(metavar="N", help="stop after N more experiments")] = None,
    hours: Annotated[
        float | None,
        Option(metavar="HOURS", parser=parsed_hours, help="start no experiment after so many hours: 8, 0.5 or 1:30"),
    ] = None,
    max_cost: Annotated[float | None, Option(metavar="USD", help="model: the most that this run may spend")] = None,
    max_tokens: Annotated[int | None, Option(metavar="N", help="model: the most tokens that this run may use")] = None,
    model: Annotated[str | None, Option(metavar="NAME", help="model: its name; default: the provider's")] = None,
    provider: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="model: anthropic, or openai for any compatible server",
            autocompletion=completion.providers,
        ),
    ] = None,
    endpoint: Annotated[
        str | None, Option(metavar="URL", help="model: the server to ask instead of the provider's")
    ] = None,
    effort: Annotated[
        str | None,
        Option(
            metavar="LEVEL",
            help="model: how hard it thinks: low, medium, high, xhigh or max",
            autocompletion=completion.efforts,
        ),
    ] = None,
    thinking_budget: Annotated[
        int | None, Option(metavar="TOKENS", help="model: tokens to think with, where the model takes a budget")
    ] = None,
    price: Annotated[
        str | None,
        Option(metavar="PRICES", help='model: "IN OUT [READ [WRITE]]" in USD per million tokens; "0 0" is free'),
    ] = None,
    command: Annotated[
        str | None,
        Option(
            metavar="WORDS", help='coding agent: its command line, such as "claude -p {prompt}"; runs without a shell'
        ),
    ] = None,
    command_env: Annotated[
        list[str] | None,
        Option(metavar="NAME", help="coding agent: an environment variable to pass on; may be repeated"),
    ] = None,
    command_read: Annotated[
        list[Path] | None,
        Option(metavar="PATH", help="coding agent: another file or folder it may read; may be repeated"),
    ] = None,
    command_home: Annotated[
        Path | None,
        Option(metavar="FOLDER", help="coding agent: its home folder, with its login; default: an empty one"),
    ] = None,
    command_minutes: Annotated[
        float | None, Option(metavar="MINUTES", help="coding agent: the time limit of one proposal")
    ] = None,
    lessons: Annotated[
        Path | None, Option(metavar="FILE", help="lessons shared between campaigns; default: lessons.md in DIR")
    ] = None,
    learn_from: Annotated[
        Path | None,
        Option(
            metavar="DIR",
            help="search: another campaign, whose experiments and lessons it begins with",
            autocompletion=completion.campaigns,
        ),
    ] = None,
    replay: Annotated[
        Path | None,
        Option(metavar="DIR", help="--agent replay: the campaign to repeat", autocompletion=completion.campaigns),
    ] = None,
    seed: Annotated[int | None, Option(metavar="N", help="search: its random seed")] = None,
    agent_settings: Annotated[
        list[str] | None,
        Option("--agent-set", metavar="KEY=VALUE", help="a setting of another package's agent; may be repeated"),
    ] = None,
    full_trials: Annotated[
        bool, Option("--full-trials", help="stop no trial early, however far behind the champion it is")
    ] = False,
    no_sandbox: NoSandbox = False,
    as_json: AsJson = False,
) -> None:
    """Run or resume a campaign until a limit or Ctrl-C.

    It measures the baseline first and then runs one experiment after the other. With --json, each experiment is
    printed as a line of JSON when it ends.

    \b
      autoresearch run night --preset h100 --hours 8
      autoresearch run night                                resume it
      autoresearch run night --full-trials                  stop none early
      autoresearch run demo --preset demo --experiments 12
      autoresearch run second --learn-from night            begin with what another campaign found
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
        learn_from=learn_from,
        replay=replay,
        seed=seed,
    )
    # An agent knows its own defaults, and refuses options that it does not take.
    chosen = {name: value for name, value in options.items() if value is not None and value != ()}
    proposing = registry.make(agent, **chosen, **_pairs(agent_settings or (), options))
    campaign = resolve.make_or_open(
        folder,
        PresetOptions(preset=preset, device=device, settings=settings, corpus=corpus, budget=budget),
        like=replay,
    )
    printer = _ExperimentPrinter(campaign, as_json)
    with campaign, interruptible(f"`{same_command()}` continues from here"):
        given = {"experiments": experiments, "hours": hours, "max_cost": max_cost, "max_tokens": max_tokens}
        terminal.notice(f"limits: {limits(campaign.program, given)}")
        try:
            with Follower(terminal.err(), printer) as follower:
                campaign.run(
                    proposing, experiments=experiments, hours=hours, full_trials=full_trials, on_event=follower
                )
        except KeyboardInterrupt as interrupt:
            with contextlib.suppress(OSError, UserError):  # the terminal may be what was closed
                printer.end(samples=getattr(interrupt, "signum", signal.SIGINT) == signal.SIGINT)
            raise
        except UserError:
            if printer.ended:
                printer.end(samples=False)
            raise
        printer.end()


def limits(program: Program, options: Mapping[str, float | None]) -> str:
    """The limits that hold and where each comes from: the lower of program.md's and the option's."""
    forms = {
        "experiments": "{} experiments", "hours": "{:g} hours",
        "max_cost": "${:g} for a model", "max_tokens": "{:,} tokens of a model",
    }  # fmt: skip
    parts = []
    for name, form in forms.items():
        sources = ((options[name], f"--{name.replace('_', '-')}"), (getattr(program, name), PROGRAM))
        if known := [(value, source) for value, source in sources if value is not None]:
            value, source = min(known)
            parts.append(f"{form.format(value)} ({source})")
    if program.fixed:
        parts.append(f"{', '.join(program.fixed)} fixed ({PROGRAM})")
    parts += [f"{held} ({PROGRAM})" for held in program.limits.described() if held not in Limits().described()]
    return f"{'; '.join(parts)}. Ctrl-C ends it too" if parts else f"none in {PROGRAM} or options; Ctrl-C ends it"


def _pairs(settings: Sequence[str], own: Mapping[str, Any]) -> dict[str, str]:
    """The pairs of `--agent-set`. UserError: no KEY=VALUE, a key given twice, or a key that has an option (`own`)."""
    pairs: dict[str, str] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not (name.isidentifier() and equals):
            raise UserError(f"--agent-set: expected KEY=VALUE, not {setting!r}")
        if name in own:
            raise UserError(f"--agent-set {name}: it has its own option, use --{name.replace('_', '-')}")
        if name in pairs:
            raise UserError(f"--agent-set {name}: it was given twice, as {pairs[name]!r} and {value!r}; leave one out")
        pairs[name] = value
    return pairs


class _ExperimentPrinter:
    """Prints each experiment as it ends, and draws progress.png where one was kept."""

    def __init__(self, campaign: Campaign, as_json: bool) -> None:
        self._campaign = campaign
        self._as_json = as_json
        self._console = terminal.out()
        self.ended = 0
        self._stale = False

    def __call__(self, judged: Judged) -> None:
        from core.cli.render import tables
        from core.measure.lone_trial import trial_warnings

        experiment = judged.experiment
        if self._as_json:
            terminal.json_line(terminal.with_gain(experiment))
        else:
            width, beliefs = self._console.width, self._campaign.believes
            if self.ended == 0:
                tables.emit(self._console, tables.header(width, beliefs=beliefs))
            tables.emit(self._console, tables.row(experiment, width, beliefs=beliefs))
        if experiment.number == 0 and experiment.trials:
            for warning in trial_warnings(experiment.trials[0]):
                terminal.notice(f"warning about preset {self._campaign.preset.name}: {warning}")
        self.ended += 1
        self._stale = True
        if experiment.verdict == "keep" and experiment.number > 0:
            self.plot()

    def end(self, *, samples: bool = True) -> None:
        """Draws the picture and, unless experiments are printed as JSON, shows how the campaign stands."""
        self.plot()
        if not self._as_json:
            ending.show(self._campaign, samples=samples)

    def plot(self) -> None:
        """Draws progress.png again if experiments ended since it was last drawn."""
        from core.cli.render import plots

        if self._stale:
            plots.campaign_progress(self._campaign)
            self._stale = False
