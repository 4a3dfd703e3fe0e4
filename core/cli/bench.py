"""`autoresearch bench`: measures how fast each part is on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from core.cli import completion, resolve
from core.cli.options import AsJson, PresetSettings, TrainingDevice, comma_separated, interruptible
from core.cli.render import terminal
from core.records import Preset, UserError
from core.system.text import count, seconds

if TYPE_CHECKING:
    from rich.console import RenderableType

    from core.measure.bench import BenchmarkRun, Result


def bench(
    suites: Annotated[
        list[str] | None,
        Argument(metavar="SUITE", help="suites, or all; default: all but experiment", autocompletion=completion.suites),
    ] = None,
    preset: Annotated[
        str,
        Option(
            "--preset", "-p", metavar="NAME", help="the preset that gives the shapes", autocompletion=completion.presets
        ),
    ] = resolve.DEFAULT_PRESET,
    backends: Annotated[
        str | None,
        Option(metavar="A,B", help="the backends; default: all that are installed", autocompletion=completion.backends),
    ] = None,
    device: TrainingDevice = None,
    settings: PresetSettings = None,
    quick: Annotated[bool, Option("--quick", help="run few rounds, to see that it works")] = False,
    against: Annotated[
        Path | None, Option(metavar="FILE", help="compare with this run instead of the last similar one")
    ] = None,
    listed: Annotated[bool, Option("--list", help="list the suites and run nothing")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure tokenizer, packing, steps, optimizers, scoring and the matrix peak.

    Each run is saved with hardware, versions and commit, and is compared with the last one on the same machine. A
    slower result is marked; it does not change the exit status.

    \b
      autoresearch bench --quick
      autoresearch bench step optimizer --preset cpu --backends torch,jax
    """
    from core.measure import bench as suite_runner
    from core.measure.bench_estimate import expected_time

    if listed:
        terminal.json_text(suite_runner.SUITES, plain=True) if as_json else terminal.say(listing())
        return
    chosen = suite_runner.chosen(suites or [])
    suite_runner.source()
    named = resolve.preset_for(resolve.PresetOptions(preset=preset, device=device, settings=settings))
    sides = _sides(named, backends, device) if backends or set(chosen) & set(suite_runner.OF_BACKENDS) else {}
    before = suite_runner.read(against) if against is not None else None
    expected = expected_time(chosen, named, sides, quick=quick)
    terminal.notice(f"about {seconds(expected.seconds)} in all if little else runs, by {expected.source}")
    held: dict[str, Any] = {}
    with interruptible("the same command starts again"):
        try:
            for ended in suite_runner.measure(chosen, named, sides, quick, terminal.notice):
                held = ended
        except (KeyboardInterrupt, UserError):
            if held:
                kept = suite_runner.keep(held, named.name)
                terminal.notice(f"kept in {kept}: the benchmarks that ended, {len(held['benchmarks'])} of them")
                console = terminal.err()
                console.print(table(suite_runner.parse(held), None, console.width))
            raise
    run = suite_runner.parse(held)
    if before is None:
        before = suite_runner.last_like(run, terminal.notice)
    elif not suite_runner.comparable(run, before):
        terminal.notice(f"warning: {against} is of another machine or preset, so its times may not be comparable")
    kept = suite_runner.keep(held, named.name)
    if as_json:
        facts = {"machine": dict(run.machine), "commit": dict(run.commit), "results": run.rows(before)}
        earlier = before and {"when": before.when, "changes": run.changes_since(before)}
        terminal.json_text({"when": run.when, **facts, "before": earlier, "kept": str(kept)})
    else:
        terminal.say(heading(run))
        console = terminal.out()
        console.print(table(run, before, console.width))
        terminal.say("\n".join([*notes(run, before), f"kept in {kept}"]))


def _sides(preset: Preset, names: str | None, device: str | None) -> dict[str, Preset]:
    """The preset for each backend. Its own backend comes first, so that a missing device is noticed early."""
    import backends as registry
    from core.measure import compare

    wanted = comma_separated(names)
    for name in wanted:
        if not registry.get(name).has_model:
            raise UserError(f"backend {name!r} has no model and so no steps to measure: leave it out")
    sides = compare.of_backends(preset, wanted, device)
    return dict(sorted(sides.items(), key=lambda side: side[0] != preset.backend))


def listing() -> str:
    """The suites, a line each."""
    from core.measure.bench import SUITES

    return "\n".join(f"{name:<11} {what}" for name, what in SUITES.items())


def heading(run: BenchmarkRun) -> str:
    """Machine, preset, versions and commit on one line."""
    machine = run.machine
    hardware = ", ".join([f"{machine['cores']} cores of {machine['processor']}", *machine["accelerators"]])
    versions = ", ".join(f"{name} {version}" for name, version in sorted(machine["versions"].items()))
    return f"{hardware}; preset {machine['preset']['name']}; {versions}; commit {run.short_commit}"


def table(run: BenchmarkRun, before: BenchmarkRun | None, width: int = terminal.PIPE_WIDTH) -> RenderableType:
    """A row a benchmark, suite by suite, beside an earlier run if there is one."""
    from rich.text import Text

    from core.cli.render.tables import Column, fitted

    columns = [Column("suite", spare=1), Column("benchmark"), Column("median", right=True)]
    columns += [Column("spread", right=True, spare=2), Column("rate", right=True)]
    columns += [Column("of peak", right=True), Column("time to before", right=True)]
    rows = []
    for one in run.results:
        share, against = run.share_of_peak(one), one.against(before)
        speed = Text("-" if against is None else f"{against[0]:.2f}x")
        if against is not None and against[1]:
            speed.append(" slower")
            speed.stylize("red")
        cells = (
            one.suite, Text(one.name), short(one.median), short(one.q3 - one.q1), rate(one),
            "-" if share is None else f"{share:.1%}", speed,
        )  # fmt: skip
        rows.append(cells)
    return fitted(columns, rows, width)


def notes(run: BenchmarkRun, before: BenchmarkRun | None) -> list[str]:
    """What the columns of the table are relative to."""
    found = ["spread: between the quartiles"]
    if any(run.share_of_peak(one) for one in run.results):
        found.append("of peak: of the FLOP/s of the best matrix product on the same device")
    if before is not None:
        found.append(
            f"before: {before.when[:19]}; {', '.join(run.changes_since(before)) or 'same versions and commit'}"
        )
    return found


def rate(one: Result) -> str:
    """Tokens, bytes or FLOPs a second, whichever the benchmark counts first."""
    for what, unit in (("tokens", "tokens"), ("bytes", "bytes"), ("flops", "FLOP")):
        if value := one.rate(what):
            return f"{count(value)} {unit}/s"
    return "-"


def short(seconds: float) -> str:
    """A duration with its unit: 1.23 s, 4.56 ms, 7.89 us."""
    for size, unit in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"
