"""`autoresearch bench`: how fast each part is on this machine, as a share of what it can do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.cli import resolve
from core.cli.options import AsJson, Device, Settings, all_of, interruptible
from core.cli.render import terminal
from core.records import Preset, UserError


def bench(
    suites: Annotated[
        list[str] | None, typer.Argument(metavar="[SUITE]", help="or all; without it, all but experiment")
    ] = None,
    preset: Annotated[
        str, typer.Option("--preset", "-p", metavar="NAME", help="whose shapes the steps have")
    ] = resolve.DEFAULT_PRESET,
    backends: Annotated[str | None, typer.Option(metavar="A,B", help="without it, every one that is installed")] = None,
    device: Device = None,
    settings: Settings = None,
    quick: Annotated[bool, typer.Option("--quick", help="few rounds: to see that it runs")] = False,
    against: Annotated[
        Path | None, typer.Option(metavar="FILE", help="compare with this run, not with the last one like it")
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="the suites, and nothing is run")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure tokenizer, packing, steps, optimizers, scoring and the matrix peak.

    Each run is kept with hardware, versions and commit, and held against the last on the same machine. Being slower
    is told, and is no failure.

    \b
      autoresearch bench --quick
      autoresearch bench step optimizer --preset cpu --backends torch,jax
    """
    from core.cli.render import bench as view
    from core.measure import bench as logic

    if listed:
        terminal.json_text(logic.SUITES) if as_json else terminal.say(view.listing())
        return
    chosen = logic.chosen(suites or [])
    logic.source()
    named = resolve.preset_for(resolve.Asked(preset=preset, device=device, settings=all_of(settings)))
    sides = _sides(named, backends, device) if backends or set(chosen) & set(logic.OF_BACKENDS) else {}
    before = logic.read(against) if against is not None else None
    with interruptible("nothing was kept: the same command starts again"):
        held = logic.measure(chosen, named, sides, quick, terminal.notice)
    run = logic.parse(held)
    if before is None:
        before = logic.last_like(run, terminal.notice)
    elif not logic.comparable(run, before):
        terminal.notice(f"{against} is of another machine or preset: its times compare with care")
    kept = logic.keep(held, named.name)
    if as_json:
        facts = {"machine": dict(run.machine), "commit": dict(run.commit), "results": logic.rows(run, before)}
        earlier = before and {"when": before.when, "changes": logic.changes(run, before)}
        terminal.json_text({"when": run.when, **facts, "before": earlier, "kept": str(kept)})
    else:
        terminal.say(view.heading(run))
        terminal.out().print(view.table(run, before))
        terminal.say("\n".join([*view.notes(run, before), f"kept in {kept}"]))


def _sides(preset: Preset, names: str | None, device: str | None) -> dict[str, Preset]:
    """The preset for each backend, its own first: the device that it names is then missed before much is measured."""
    from core.measure import compare

    wanted = [name.strip() for name in (names or "").split(",") if name.strip()]
    if compare.NO_MODEL in wanted:
        raise UserError(f"backend {compare.NO_MODEL!r} counts pairs of tokens and has no steps: leave it out")
    sides = compare.of_backends(preset, wanted, device)
    return dict(sorted(sides.items(), key=lambda side: side[0] != preset.backend))
