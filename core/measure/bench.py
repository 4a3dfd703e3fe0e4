"""Benchmarks as `autoresearch bench` runs them: suites of pytest-benchmark in their own processes, kept and compared.

A run is kept below the cache folder, one file in pytest-benchmark's format. Two runs compare if machine and preset are
the same. Nothing here fails because something was slow: machines are noisy.
"""

from __future__ import annotations

import datetime
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from core.records import Preset, UserError, to_json
from core.sandbox.environment import scrubbed
from core.sandbox.spawn import ReapedProcess
from core.system.files import cache_root, write_json
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
SETTINGS = "AUTORESEARCH_BENCH"  # what a process of the suites is told, as JSON in its environment
PROGRESS, MISTAKE = "measuring: ", "mistake: "  # how lines of such a process begin that are meant for this one
SLOWER = 1.10  # of the median, beyond which a benchmark is marked, if the quartiles part too
SAME = ("processor", "cores", "accelerators", "preset", "quick")  # in runs that compare

Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Result:
    """One benchmark of one run; seconds a round."""

    suite: str
    name: str
    median: float
    best: float
    q1: float
    q3: float
    rounds: int
    facts: Mapping[str, Any]  # of one round: tokens, bytes, flops; the backend; its device and dtype

    def rate(self, what: str) -> float | None:
        """`tokens`, `bytes` or `flops` a second at the median."""
        amount = self.facts.get(what)
        return float(amount) / self.median if amount else None

    def against(self, before: BenchmarkRun | None) -> tuple[float, bool] | None:
        """Seconds now over seconds before, and whether that is slower beyond the spread of both; None if it is new."""
        names = (self.suite, self.name)
        old = next((one for one in (before.results if before else ()) if (one.suite, one.name) == names), None)
        if old is None:
            return None
        times = self.median / old.median
        return times, times > SLOWER and self.q1 > old.q3


@dataclass(frozen=True, kw_only=True)
class BenchmarkRun:
    """What one call measured, when and where."""

    when: str  # in UTC
    machine: Mapping[str, Any]
    commit: Mapping[str, Any]
    results: tuple[Result, ...]

    def peak(self, device: str | None) -> float | None:
        """FLOP/s of the best matrix product on the device in this run, whichever backend made it; None without one."""
        products = (one for one in self.results if one.suite == "peak" and one.facts["device"] == device)
        return max((one.facts["flops"] / one.best for one in products), default=None)

    def share_of_peak(self, result: Result) -> float | None:
        """FLOP/s of a benchmark over the peak of its device."""
        rate, peak = result.rate("flops"), self.peak(result.facts.get("device"))
        return rate / peak if rate and peak else None

    @property
    def short_commit(self) -> str:
        """The commit that was measured, short; with `+` if the work tree differed from it."""
        return str(self.commit["id"])[:10] + ("+" if self.commit.get("dirty") else "")

    def changes_since(self, before: BenchmarkRun) -> list[str]:
        """What differs between two runs that compare: `torch 2.9.0 -> 2.10.0`, and the commit."""
        old, new = before.machine["versions"], self.machine["versions"]
        shared = sorted(old.keys() & new.keys())
        found = [f"{name} {old[name]} -> {new[name]}" for name in shared if old[name] != new[name]]
        if before.short_commit != self.short_commit:
            found.append(f"commit {before.short_commit} -> {self.short_commit}")
        return found

    def rows(self, before: BenchmarkRun | None) -> list[dict[str, Any]]:
        """A row a benchmark, as JSON's own types; `before` is what they are compared with."""
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
    """The folder of the suites. UserError where they or what runs them are missing."""
    folder = Path(__file__).resolve().parents[2] / "benchmarks"
    if not (folder / "conftest.py").is_file():
        raise UserError("the benchmarks come with the source tree: git clone it, make setup, and call this there")
    for module in ("pytest", "pytest_benchmark", "pytest_timeout"):
        if find_spec(module) is None:
            raise UserError(f"{module} is not installed. Install it with: uv pip install 'autoresearch[dev]'")
    return folder


def chosen(names: Sequence[str]) -> list[str]:
    """The suites that run if these are asked for, in their order; without a name all but `experiment`."""
    if unknown := [name for name in names if name not in (*SUITES, "all")]:
        raise UserError(f"no suite {unknown[0]!r}; there are: {', '.join(SUITES)}, or all of them: all")
    if "all" in names:
        return list(SUITES)
    asked = set(names) or set(SUITES) - {"experiment"}
    return [name for name in SUITES if name in asked or (name == "peak" and "step" in asked)]


def measure(
    suites: Sequence[str], preset: Preset, sides: Mapping[str, Preset], quick: bool, tell: Tell
) -> dict[str, Any]:
    """Runs the suites: those of backends in a process for each side, the rest in another one.

    Frameworks in one process would take each other's threads. Returns what pytest-benchmark wrote, as one document.
    UserError, with what it printed, if one fails.
    """
    parts = [*((OF_BACKENDS, side) for side in sides.values()), (OF_NONE, None)]
    found = [
        _measure_part(asked, preset, side, quick, tell)
        for part, side in parts
        if (asked := [name for name in suites if name in part])
    ]
    run = found[0]
    run["machine_info"]["versions"] = {
        name: version for part in found for name, version in part["machine_info"]["versions"].items()
    }
    every = [one for part in found for one in part["benchmarks"]]
    for one in every:
        del one["stats"]["data"]  # every single round
    run["benchmarks"] = sorted(every, key=lambda one: list(SUITES).index(one["group"]))
    return run


def _measure_part(
    suites: Sequence[str], preset: Preset, side: Preset | None, quick: bool, tell: Tell
) -> dict[str, Any]:
    """One process, with the environment of a trial's and under a reaper: nothing of it outlives this call."""
    told = {"suites": suites, "preset": to_json(preset), "side": side and to_json(side), "quick": quick}
    with tempfile.TemporaryDirectory(prefix="autoresearch-", ignore_cleanup_errors=True) as temporary:
        into, scratch = Path(temporary) / "run.json", Path(temporary) / "scratch"
        scratch.mkdir()
        variables = scrubbed(scratch, {})
        if side:
            environment = backend_environment(side)
            compile_cache.copy(compile_cache.store(side.backend), environment.cache(scratch))
            variables = environment.variables(scratch)
        command = [
            sys.executable, "-P", "-m", "pytest", "-p", "pytest_benchmark.plugin", "-p", "no:cacheprovider",
            str(source()), "-q", "-s", "--benchmark-only", "--benchmark-quiet", "--timeout=0", "-W", "default",
            f"--benchmark-json={into}",
        ]  # fmt: skip
        with ReapedProcess(
            command,
            folder=scratch,
            private=scratch,
            usage=Path(temporary) / "usage.json",
            cwd=source().parent,
            environment={**variables, SETTINGS: json.dumps(told)},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        ) as process:
            try:
                _follow(process, tell)
            finally:
                process.end()
        return dict(json.loads(into.read_text(encoding="utf-8")))


def _follow(process: ReapedProcess, tell: Tell) -> None:
    """Tells the progress of a process until it ends. UserError if it names a mistake or fails."""
    printed: list[str] = []
    assert process.stdout is not None
    with io.TextIOWrapper(process.stdout, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith(PROGRESS):
                tell(line.strip())
            elif line.startswith(MISTAKE):
                raise UserError(line.removeprefix(MISTAKE).strip())
            else:
                printed.append(line)
    if process.wait() != 0:
        raise UserError("a benchmark failed:\n" + "".join(printed[-40:]).rstrip())


def parse(held: Mapping[str, Any]) -> BenchmarkRun:
    """A run from pytest-benchmark's document. KeyError, TypeError or ValueError if it is none of these."""
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
        )
        for one in held["benchmarks"]
    )
    return BenchmarkRun(
        when=held["datetime"], machine=held["machine_info"], commit=held["commit_info"], results=results
    )


def read(path: Path) -> BenchmarkRun:
    """A run that was kept. UserError if the file is none."""
    try:
        return parse(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{path} is no run of autoresearch bench: {error!r}") from error


def folder() -> Path:
    """Where runs are kept; their names sort by time."""
    return cache_root() / "benchmarks"


def keep(held: Mapping[str, Any], preset: str) -> Path:
    """Writes a run's document at once or not at all."""
    path = folder() / f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%S.%fZ}-{preset}.json"
    write_json(path, held)
    return path


def comparable(run: BenchmarkRun, other: BenchmarkRun) -> bool:
    """Whether both ran on one machine with the same shapes."""
    return all(run.machine.get(key) == other.machine.get(key) for key in SAME)


def last_like(run: BenchmarkRun, tell: Tell) -> BenchmarkRun | None:
    """The newest kept run that compares with this one. A file that can't be read is passed over, and told."""
    for path in sorted(folder().glob("*.json"), reverse=True):
        try:
            if comparable(run, other := read(path)):
                return other
        except UserError as error:
            tell(f"passed over: {error}")
    return None
