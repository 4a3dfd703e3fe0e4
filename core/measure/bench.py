"""Benchmarks of `autoresearch bench`: runs suites of pytest-benchmark in their own processes, saves and compares them.

A run is one file in the cache folder, in pytest-benchmark's format. Two runs are comparable if machine and preset are
equal. Nothing here fails because something was slow: machines are noisy.
"""

from __future__ import annotations

import datetime
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from core.records import Preset, UserError, to_json, unknown
from core.sandbox.environment import scrubbed
from core.sandbox.spawn import ReapedProcess
from core.system import install, scratch
from core.system.files import cache_root, parse_json, write_json
from core.trial import compile_cache
from core.trial.supervisor import backend_environment

SUITES = {
    "peak": "matrix products: NumPy's in float32, and each backend's in the dtype that its trainer takes",
    "step": "one step of each backend's reference trainer, at the preset's shapes; brings peak along",
    "optimizer": "the optimizer's part of a step alone",
    "scoring": "losses of a text, as the supervisor asks for them",
    "packing": "batches from token shards",
    "tokenizer": "training one, and encoding",
    "experiment": "an experiment beside its trial, in a campaign of 10,000; takes a minute",
}
OF_BACKENDS = ("peak", "step", "optimizer", "scoring")
OF_NONE = ("peak", "packing", "tokenizer", "experiment")
SETTINGS = "AUTORESEARCH_BENCH"  # the environment variable with the settings of a suites' process, as JSON
PROGRESS, ENDED, MISTAKE = "measuring: ", "ended: ", "mistake: "  # how such a process begins lines for this one
WIDER = 4  # times the matrices of an accelerator: what goes before a kernel then counts for nothing
SLOWER = 1.10  # medians' ratio from which a benchmark is marked, if the quartiles do not overlap
SAME = ("processor", "cores", "accelerators", "preset", "quick")  # equal in comparable runs

Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Result:
    """One benchmark of one run, in seconds a round."""

    suite: str
    name: str
    median: float
    best: float
    q1: float
    q3: float
    rounds: int
    facts: Mapping[str, Any]  # of one round: tokens, bytes, flops; also backend, device and dtype
    wall_seconds: float | None = None  # with all that went before its rounds; None in older files

    def rate(self, what: str) -> float | None:
        """`tokens`, `bytes` or `flops` a second, at the median."""
        amount = self.facts.get(what)
        return float(amount) / self.median if amount else None

    def against(self, before: BenchmarkRun | None) -> tuple[float, bool] | None:
        """The time relative to `before`, and whether it is slower by more than the spread; None if it is new."""
        names = (self.suite, self.name)
        old = next((one for one in (before.results if before else ()) if (one.suite, one.name) == names), None)
        if old is None:
            return None
        times = self.median / old.median
        return times, times > SLOWER and self.q1 > old.q3


@dataclass(frozen=True, kw_only=True)
class BenchmarkRun:
    """The results of one call, with time and machine."""

    when: str  # in UTC
    machine: Mapping[str, Any]
    commit: Mapping[str, Any]
    results: tuple[Result, ...]

    def peak(self, device: str | None) -> float | None:
        """FLOP/s of the best matrix product on the device in this run, of any backend; None if there is none."""
        products = (one for one in self.results if one.suite == "peak" and one.facts["device"] == device)
        return max((one.facts["flops"] / one.best for one in products), default=None)

    def share_of_peak(self, result: Result) -> float | None:
        """FLOP/s of a benchmark divided by the peak of its device; None if either is unknown."""
        rate, peak = result.rate("flops"), self.peak(result.facts.get("device"))
        return rate / peak if rate and peak else None

    @property
    def short_commit(self) -> str:
        """The short commit, with `+` if the work tree differed from it."""
        return str(self.commit["id"])[:10] + ("+" if self.commit.get("dirty") else "")

    def changes_since(self, before: BenchmarkRun) -> list[str]:
        """What differs between two comparable runs: `torch 2.9.0 -> 2.10.0`, and the commit."""
        old, new = before.machine["versions"], self.machine["versions"]
        shared = sorted(old.keys() & new.keys())
        found = [f"{name} {old[name]} -> {new[name]}" for name in shared if old[name] != new[name]]
        if before.short_commit != self.short_commit:
            found.append(f"commit {before.short_commit} -> {self.short_commit}")
        return found

    def rows(self, before: BenchmarkRun | None) -> list[dict[str, Any]]:
        """The benchmarks for `--json`, compared with `before`."""
        return [
            {
                "suite": one.suite,
                "name": one.name,
                "median_seconds": one.median,
                "iqr_seconds": one.q3 - one.q1,
                "rounds": one.rounds,
                **{f"{what}_per_second": one.rate(what) for what in ("tokens", "bytes", "flops")},
                "share_of_peak": self.share_of_peak(one),
                "against_before": against[0] if against else None,
                "slower": against[1] if against else None,
                **one.facts,
            }
            for one in self.results
            for against in [one.against(before)]
        ]


def source() -> Path:
    """The folder of the suites. UserError if they, or the packages that run them, are missing."""
    folder = Path(__file__).resolve().parents[2] / "benchmarks"
    if not (folder / "conftest.py").is_file():
        raise UserError(
            "the benchmarks come with the source tree: git clone it, run make setup, and run this command there"
        )
    for module in ("pytest", "pytest_benchmark", "pytest_timeout"):
        if find_spec(module) is None:
            raise UserError(f"{module} is not installed. Install it with: {install.command('dev')}")
    return folder


def chosen(names: Sequence[str]) -> list[str]:
    """The suites to run for these names, in their order; without a name, all but `experiment`."""
    if others := [name for name in names if name not in (*SUITES, "all")]:
        raise unknown("suite", others[0], (*SUITES, "all"))
    if "all" in names:
        return list(SUITES)
    wanted = set(names) or set(SUITES) - {"experiment"}
    return [name for name in SUITES if name in wanted or (name == "peak" and "step" in wanted)]


def rounds(seconds: float, *, quick: bool) -> int:
    """How often a call of that duration is timed: about ten seconds long, with `quick` one, within bounds."""
    return int(min(max((1 if quick else 10) / seconds, 3), 50))


def measure(
    suites: Sequence[str], preset: Preset, sides: Mapping[str, Preset], quick: bool, tell: Tell
) -> Iterator[dict[str, Any]]:
    """Runs the backends' suites in a process for each side, and the others in one more.

    Frameworks in one process would take each other's threads. Yields a document of pytest-benchmark's whenever a
    benchmark has ended, with all that have ended before: whoever stops it has lost one benchmark. UserError, with the
    output, if a benchmark fails.
    """
    parts = [*((OF_BACKENDS, side) for side in sides.values()), (OF_NONE, None)]
    before: list[dict[str, Any]] = []
    for part, side in parts:
        if chosen := [name for name in suites if name in part]:
            now: dict[str, Any] = {}
            for now in _measure_part(chosen, preset, side, quick, tell):
                yield _merged([*before, now])
            before.append(now)


def _merged(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Documents of one run as one, without every single round."""
    versions = {name: version for part in parts for name, version in part["machine_info"]["versions"].items()}
    every = [one for part in parts for one in part["benchmarks"]]
    return {
        **parts[0],
        "machine_info": {**parts[0]["machine_info"], "versions": versions},
        "benchmarks": sorted(every, key=lambda one: list(SUITES).index(one["group"])),
    }


def _measure_part(
    suites: Sequence[str], preset: Preset, side: Preset | None, quick: bool, tell: Tell
) -> Iterator[dict[str, Any]]:
    """Runs one process in a trial's environment and under a reaper, so that nothing of it outlives this call."""
    settings = {"suites": suites, "preset": to_json(preset), "side": side and to_json(side), "quick": quick}
    with scratch.folder() as temporary:
        ended, home = temporary / "ended.json", temporary / "scratch"
        home.mkdir()
        settings["ended"] = str(ended)
        variables = scrubbed(home, {})
        if side:
            environment = backend_environment(side)
            compile_cache.copy(compile_cache.store(side.backend), environment.cache(home))
            variables = environment.variables(home, training=True)
        command = [
            sys.executable, "-P", "-m", "pytest", "-p", "pytest_benchmark.plugin", "-p", "no:cacheprovider",
            str(source()), "-q", "-s", "--benchmark-only", "--benchmark-quiet", "--timeout=0", "-W", "default",
        ]  # fmt: skip
        with ReapedProcess(
            command,
            folder=home,
            private=home,
            usage=temporary / "usage.json",
            cwd=source().parent,
            environment={**variables, SETTINGS: json.dumps(settings)},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        ) as process:
            try:
                for _ in _follow(process, tell):
                    yield dict(json.loads(ended.read_text(encoding="utf-8")))
            finally:
                process.end()


def _follow(process: ReapedProcess, tell: Tell) -> Iterator[None]:
    """Passes on a process's progress until it ends, and yields after each benchmark.

    UserError if the process reports a mistake or fails.
    """
    printed: list[str] = []
    assert process.stdout is not None
    with io.TextIOWrapper(process.stdout, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith(PROGRESS):
                tell(line.strip())
            elif line.startswith(ENDED):
                yield
            elif line.startswith(MISTAKE):
                raise UserError(line.removeprefix(MISTAKE).strip())
            else:
                printed.append(line)
    if process.wait() != 0:
        raise UserError("a benchmark failed:\n" + "".join(printed[-40:]).rstrip())


def parse(held: Mapping[str, Any]) -> BenchmarkRun:
    """A run from pytest-benchmark's document. KeyError, TypeError or ValueError if it is something else."""
    results = tuple(
        Result(
            suite=one["group"],
            name=one["name"].removeprefix("test_"),
            median=one["stats"]["median"],
            best=one["stats"]["min"],
            q1=one["stats"]["q1"],
            q3=one["stats"]["q3"],
            rounds=one["stats"]["rounds"],
            facts=one["extra_info"],
            wall_seconds=one.get("wall_seconds"),
        )
        for one in held["benchmarks"]
    )
    return BenchmarkRun(
        when=held["datetime"], machine=held["machine_info"], commit=held["commit_info"], results=results
    )


def read(path: Path) -> BenchmarkRun:
    """A saved run. UserError if the file is something else."""
    try:
        return parse(parse_json(path.read_bytes()))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{path} is no run of autoresearch bench: {error!r}") from error


def folder() -> Path:
    """The folder of saved runs; their names sort by time."""
    return cache_root() / "benchmarks"


def keep(held: Mapping[str, Any], preset: str) -> Path:
    """Saves a run's document, whole or not at all."""
    path = folder() / f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%S.%fZ}-{preset}.json"
    write_json(path, held)
    return path


def comparable(run: BenchmarkRun, other: BenchmarkRun) -> bool:
    """Whether both ran on the same machine with the same shapes."""
    return all(run.machine.get(key) == other.machine.get(key) for key in SAME)


def saved(tell: Tell) -> Iterator[BenchmarkRun]:
    """The saved runs, newest first. Reports files that can't be read to `tell`, and skips them."""
    for path in sorted(folder().glob("*.json"), reverse=True):
        try:
            yield read(path)
        except UserError as error:
            tell(f"skipped: {error}")


def last_like(run: BenchmarkRun, tell: Tell) -> BenchmarkRun | None:
    """The newest saved run that is comparable and has what this one has; else the newest that is comparable.

    Reports files that can't be read to `tell`, and skips them.
    """
    newest = None
    names = {(one.suite, one.name) for one in run.results}
    for other in saved(tell):
        if comparable(run, other):
            if names <= {(one.suite, one.name) for one in other.results}:
                return other
            newest = newest or other  # one that was ended, or of other suites
    return newest
