"""Benchmarks of a run as text: where they ran, a table, and what to know when reading it."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from core.measure.bench import SUITES, Result, Run, changes, commit, ratio
from core.system.text import count


def listing() -> str:
    """The suites, a line each."""
    return "\n".join(f"{name:<11} {what}" for name, what in SUITES.items())


def heading(run: Run) -> str:
    """Machine, preset, versions and commit on one line."""
    machine = run.machine
    hardware = ", ".join([f"{machine['cores']} cores of {machine['processor']}", *machine["accelerators"]])
    versions = ", ".join(f"{name} {version}" for name, version in sorted(machine["versions"].items()))
    return f"{hardware}; preset {machine['preset']['name']}; {versions}; commit {commit(run)}"


def table(run: Run, before: Run | None) -> Table:
    """A row a benchmark, suite by suite, beside an earlier run if there is one."""
    found = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    found.add_column("suite", no_wrap=True)
    found.add_column("benchmark", no_wrap=True)
    for name in ("median", "spread", "rate", "of peak", "time to before"):
        found.add_column(name, justify="right", no_wrap=True)
    for one in run.results:
        share, against = run.share_of_peak(one), ratio(one, before)
        told = Text("-" if against is None else f"{against[0]:.2f}x")
        if against is not None and against[1]:
            told.append(" slower")
            told.stylize("red")
        found.add_row(
            one.suite, Text(one.name), short(one.median), short(one.q3 - one.q1), rate(one),
            "-" if share is None else f"{share:.1%}", told,
        )  # fmt: skip
    return found


def notes(run: Run, before: Run | None) -> list[str]:
    """What the columns of the table are held against."""
    found = ["spread: between the quartiles"]
    if any(run.share_of_peak(one) for one in run.results):
        found.append("of peak: of the FLOP/s of the best matrix product on the same device")
    if before is not None:
        found.append(f"before: {before.when[:19]}; {', '.join(changes(run, before)) or 'same versions and commit'}")
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
