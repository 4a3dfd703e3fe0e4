"""The `autoresearch` command: parse, call, print. Results go to standard output, all else to standard error.

What a command needs is imported when it runs, so that `--help` and `status` answer at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.cli import audit, bench, compare, confirm, doctor, presets, resolve, run, transcript
from core.cli.options import (
    CRASHED,
    SIGNALLED,
    USER_ERROR,
    AsJson,
    BudgetSeconds,
    Corpus,
    Device,
    Folder,
    NoSandbox,
    Number,
    PresetName,
    Settings,
    all_of,
    interruptible,
)
from core.cli.render import terminal
from core.cli.resolve import Asked
from core.records import Budget, Experiment, UserError, to_json
from core.system import signals

if TYPE_CHECKING:
    from core.events import Repeat

HELP = """
Train a model for minutes, keep what made it better, again and again.

\b
  autoresearch run night --preset cpu --hours 8      a campaign in the folder night, by the built-in search
  cd night && autoresearch status                    how it stands; log and show N tell more
  autoresearch try -m "wider heads"                  the trainer as you edited it, tried once
  autoresearch confirm                               the champion against the baseline, with fresh seeds
  autoresearch train --preset smoke                  one training run, outside any campaign
"""

app = typer.Typer(
    name="autoresearch",
    help=HELP,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _version(asked_for: bool) -> None:
    if asked_for:
        from importlib.metadata import version

        terminal.say(version("autoresearch"))
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """What holds for every command."""


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="a new or empty folder")],
    preset: PresetName = None,
    device: Device = None,
    settings: Settings = None,
    corpus: Corpus = None,
    budget: BudgetSeconds = None,
    tag: Annotated[
        str | None, typer.Option(metavar="TAG", help="the branch is autoresearch/TAG; without it, today's date")
    ] = None,
    program: Annotated[Path | None, typer.Option(metavar="FILE", help="your own program.md")] = None,
    trainer: Annotated[Path | None, typer.Option(metavar="FILE", help="your own train.py, taken as it is")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a campaign in a new folder: train.py, program.md and git."""
    from core.campaign.campaign import Campaign

    chosen = resolve.preset_for(
        Asked(preset=preset, device=device, settings=all_of(settings), corpus=corpus, budget=budget)
    )
    prose = None if program is None else resolve.read_text(program)
    text = None if trainer is None else resolve.read_text(trainer)
    with Campaign.create(folder, chosen, tag=tag, program=prose, trainer=text) as campaign:
        if as_json:
            terminal.json_text({"root": str(campaign.root), "branch": campaign.branch, "preset": chosen.name})
        else:
            terminal.say(f"campaign in {campaign.root}, branch {campaign.branch}, preset {chosen.name}")
            terminal.notice(f"next: autoresearch run {folder}, or edit {folder / 'train.py'} and autoresearch try")


@app.command()
def prepare(
    preset: PresetName = None,
    settings: Settings = None,
    corpus: Corpus = None,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Fetch and encode a corpus ahead of time.

    What is there already is only checked; what was cut off goes on.
    """
    chosen = resolve.preset_here(folder, Asked(preset=preset, settings=all_of(settings), corpus=corpus))
    with interruptible("the same command goes on from here"):
        dataset = resolve.dataset_of(chosen)
        resolve.fetch_kernels(chosen)
    text = dataset.scored("val", chosen.score_bytes)
    sizes = {split: {"documents": documents, "bytes": size} for split, (documents, size) in dataset.sizes().items()}
    facts = {"corpus": dataset.corpus, "vocabulary": dataset.tokenizer.vocabulary, "splits": sizes}
    if as_json:
        terminal.json_text({**facts, "scored_bytes": text.bytes, "yardstick": text.yardstick})
        return
    from core.system.text import count

    for split, size in sizes.items():
        terminal.say(f"{split:5}  {size['documents']:>9,} documents  {count(size['bytes'])}B")
    terminal.say(f"{dataset.corpus}, vocabulary {facts['vocabulary']}: ready; a score covers {count(text.bytes)}B")


@app.command()
def train(
    preset: PresetName = None,
    device: Device = None,
    settings: Settings = None,
    corpus: Corpus = None,
    budget: BudgetSeconds = None,
    steps: Annotated[
        int | None, typer.Option(metavar="N", help="train for so many steps instead: repeats exactly")
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="without it, the preset's first")] = None,
    trainer: Annotated[
        Path | None, typer.Option(metavar="FILE", help="a train.py, taken as it is but for --set")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="keep output, curve and weights in this folder")
    ] = None,
    folder: Folder = None,
    no_sandbox: NoSandbox = False,
    as_json: AsJson = False,
) -> None:
    """Run one trial by itself; nothing is recorded.

    In a campaign's folder it is of the train.py there, as it stands; elsewhere, of the preset's trainer. Ends with
    status 1 if the trial failed. With --json the record is the last line.

    \b
      autoresearch train --preset cpu --budget 60 --json
      autoresearch train --steps 5                          does my edit run at all?
    """
    from core.cli.render import tables
    from core.cli.render.presets import doubts

    if budget is not None and steps is not None:
        raise UserError("a trial has one budget: give --budget SECONDS or --steps N, not both")
    wanted = Asked(preset=preset, device=device, settings=all_of(settings), corpus=corpus, budget=budget)
    chosen = resolve.preset_here(folder, wanted)
    if trainer is None and preset is None and (root := resolve.root_of(folder)) is not None:
        trainer = root / "train.py"
    with interruptible("of a trial by itself nothing is kept: run the command again"):
        record = resolve.lone_trial(
            chosen,
            trainer=trainer,
            constants=wanted.changes(),
            budget=Budget(seconds=chosen.budget_seconds) if steps is None else Budget(steps=steps),
            seed=chosen.seeds[0] if seed is None else seed,
            into=output,
        )
    if as_json:
        terminal.json_line(to_json(record))
    else:
        terminal.out().print(tables.trial(record))
        for doubt in doubts(record):
            terminal.notice(f"doubt: {doubt}")
    if record.verdict != "scored":
        raise typer.Exit(CRASHED)


app.command()(run.run)


@app.command("try")
def try_(
    message: Annotated[
        str, typer.Option("--message", "-m", metavar="TEXT", help="the hypothesis: what should be better, and why")
    ],
    folder: Folder = None,
    agent: Annotated[str, typer.Option(metavar="NAME", help="the name that stands in the record")] = "try",
    no_sandbox: NoSandbox = False,
    as_json: AsJson = False,
) -> None:
    """Try train.py as you edited it; keep it if it is better.

    On anything but keep, train.py gets the champion's text back. Every verdict ends with status 0. With --json the
    last line has verdict, val_bpb, champion_bpb, reason and experiment.

    \b
      autoresearch try -m "a wider first layer sees more of the byte pairs"
    """
    from core.cli.render import tables
    from core.cli.render.live import Follower
    from core.cli.render.run import draw

    with resolve.campaign_of(folder) as campaign, interruptible("the same command goes on from here"):
        follower = Follower(terminal.err(), lambda judged: None)
        try:
            result = campaign.try_worktree(message, follower, agent=agent)
        finally:
            follower.close()
        told, experiment, repeat = _told(result)
        if isinstance(result, Experiment) and result.verdict == "keep":
            draw(campaign)
    if as_json:
        terminal.json_line(told)
        return
    if repeat:
        terminal.say(f"not run again: this trainer is experiment {experiment.number} already")
    terminal.out().print(tables.verdict(experiment))


@app.command()
def status(folder: Folder = None, as_json: AsJson = False) -> None:
    """How the campaign stands."""
    from core.cli.render import tables

    with resolve.campaign_of(folder) as campaign:
        values = dataclasses.asdict(campaign.status())
        if as_json:
            terminal.json_text(values)
            return
        champion = campaign.champion if values["champion_commit"] else None
        title = f"{campaign.root}  ({campaign.branch}, preset {campaign.preset.name})"
        terminal.out().print(tables.status(values, champion, title))


@app.command()
def log(
    folder: Folder = None,
    last: Annotated[int | None, typer.Option(metavar="N", help="only the last N")] = None,
    tsv: Annotated[
        bool, typer.Option("--tsv", help="results.tsv: commit, val_bpb, memory_gb, status, description")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the experiments."""
    from core.campaign.results_tsv import results
    from core.cli.render import tables

    with resolve.campaign_of(folder) as campaign:
        first = max(0, campaign.status().experiments + 1 - last) if last is not None else 0
        records = campaign.experiments(first)
    if as_json:
        terminal.json_text([terminal.with_gain(record) for record in records])
    elif tsv:
        sys.stdout.write(results(records))
    else:
        console = terminal.out()
        tables.emit(console, tables.header())
        for record in records:
            tables.emit(console, tables.row(record))


@app.command()
def show(
    number: Annotated[int, typer.Argument(metavar="N", help="the experiment; 0 is the baseline")],
    part: Annotated[str, typer.Argument(metavar="[PART]", help="diff, hypothesis, curve, output or train.py")] = "",
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Show one experiment, or one part of it.

    The whole has verdict, diff, loss curve and the trials' numbers.
    """
    from core.cli.render import show as views
    from core.cli.render import tables
    from core.store import trial_files

    parts = ("diff", "hypothesis", "curve", "output", "train.py")
    if part and part not in parts:
        raise UserError(f"an experiment has no part {part!r}: name one of {', '.join(parts)}, or none for all")
    with resolve.campaign_of(folder) as campaign:
        experiment = campaign.experiment(number)
        trials = trial_files.trials(campaign.folder(number))
        curves = [trial_files.points(trial) for trial in trials]
        diff = campaign.diff(number)
        trainer = campaign.trainer_text(experiment.commit) if part == "train.py" else ""
    if as_json:
        outputs = [trial_files.printed(trial) for trial in trials]
        terminal.json_text({**terminal.with_gain(experiment), "diff": diff, "curves": curves, "outputs": outputs})
        return
    plain = {"diff": diff, "hypothesis": experiment.hypothesis, "train.py": trainer}
    console = terminal.out()
    if part in plain and not (part == "diff" and console.is_terminal):
        sys.stdout.write(plain[part].rstrip("\n") + "\n")
        return
    if not part:
        console.print(tables.verdict(experiment))
    if part in ("", "diff"):
        console.print(views.diff(diff))
    for index, (trial, curve) in enumerate(zip(trials, curves, strict=True)):
        if part in ("", "curve"):
            terminal.say(
                f"trial {index}, seed {experiment.trials[index].seed}" if index < len(experiment.trials) else "trial"
            )
            console.print(views.chart(curve))
        if part == "output":
            sys.stdout.write(trial_files.printed(trial))
    if not part:
        for record in experiment.trials:
            console.print(tables.trial(record))
        terminal.notice(f"what it printed: autoresearch show {number} output")


app.command()(transcript.transcript)
app.command()(confirm.confirm)


@app.command()
def export(
    into: Annotated[Path, typer.Argument(metavar="FOLDER", help="a new folder for the model")],
    number: Number = None,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Write a kept model as a folder of its own.

    It has weights, train.py, facts, tokenizer, preset, results.tsv and a README.
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


@app.command()
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


app.command()(audit.audit)
# Those about devices, in the order in which they are met.
for command in (doctor.doctor, presets.presets, compare.compare, bench.bench):
    app.command()(command)


def _told(result: Experiment | Repeat) -> tuple[dict[str, Any], Experiment, bool]:
    """What `try --json` prints, the experiment that it is about, and whether that was run before."""
    repeat = not isinstance(result, Experiment)
    experiment = result if isinstance(result, Experiment) else result.earlier
    told = {key: getattr(experiment, key) for key in ("verdict", "val_bpb", "champion_bpb", "gain", "spread", "reason")}
    return {**told, "experiment": experiment.number, "repeat": repeat}, experiment, repeat


def main() -> None:
    """The entry point. A user's mistake is one message and status 2."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a console whose encoding lacks a character shows ? instead of failing
            stream.reconfigure(errors="replace")
    try:
        app(prog_name="autoresearch")
    except SystemExit as ended:
        if isinstance(ended.code, int) and ended.code > SIGNALLED:
            signals.ignored()
        raise
    except UserError as error:
        terminal.notice(f"autoresearch: {error}")
        sys.exit(USER_ERROR)


if __name__ == "__main__":
    main()
