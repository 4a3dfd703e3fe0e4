"""Measures this project on a GPU that can be had for minutes only, on a bare machine without a network.

    python scripts/gpu_kit.py pack                    here: what is missing there, in gpu-kit/
    python scripts/gpu_kit.py run --out results       there: everything, most important first, in one command

docs/gpu.md says what comes out. `run` starts with the standard library only and keeps what it has at any moment.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.gpu_variants import VARIANTS  # noqa: E402
from scripts import gpu_pack  # noqa: E402
from scripts.gpu_pack import KitError  # noqa: E402

CORPUS = "apidocs"
LIMIT = 530  # seconds: under nine minutes, with the end
GRACE = 10  # seconds in which a command that ran over may end in order
LOG_BYTES = 12 * 2**20
RESULTS, SUMMARY, LOG, PROFILE, TRACE = "results.json", "summary.txt", "log.txt", "profile.json", "trace.json.gz"
DONE = ("ok",)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What is measured on a kind of device: the preset, and seconds of training in each step."""

    preset: str
    budget: float
    variant: float
    campaign: float


SIZES = {
    "cuda": Sizes(preset="h100", budget=30, variant=20, campaign=5),
    "cpu": Sizes(preset="smoke", budget=2, variant=1, campaign=1),  # a rehearsal
}


class StepError(Exception):
    """A step failed; the text says why, and `found` is what it had found."""

    def __init__(self, why: str, found: Mapping[str, Any] | None = None) -> None:
        super().__init__(why)
        self.found = found


@dataclass(frozen=True, kw_only=True)
class Step:
    """One part of a run: it gets at most `seconds`, and is left out if less than `least` are left."""

    name: str
    about: str
    seconds: float
    least: float
    work: Callable[[Kit, float], dict[str, Any]]
    group: str = ""  # steps of a group take at most GROUP_SECONDS together

    def is_named(self, names: Sequence[str]) -> bool:
        return self.name in names or (bool(self.group) and self.group in names)


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    status: int
    printed: str  # to standard output
    last: str  # error that it printed, else its last line
    over: bool  # it was ended at its limit

    def __str__(self) -> str:
        ended = "was ended at its limit" if self.over else f"ended with status {self.status}"
        return f"{ended}{': ' if self.last else ''}{self.last}"


class Kit:
    """A run: its folders, its results, and how its commands are started."""

    def __init__(self, *, out: Path, work: Path, device: str, sizes: Sizes, limit: float) -> None:
        self.out, self.work, self.device, self.sizes = out, work, device, sizes
        self.deadline = time.monotonic() + limit
        self.begun = time.monotonic()
        self.results: dict[str, Any] = {"device": device, "preset": sizes.preset, "corpus": CORPUS, "limit": limit}
        self.results["machine"] = machine()
        self.results["steps"] = []
        self.sandbox: list[str] = []
        self.running: subprocess.Popen[str] | None = None

    # ---- Results -----------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Writes the results and their summary, each whole or not at all; a copy stays for `--rest`."""
        text = json.dumps(self.results, indent=1) + "\n"
        for path, content in (
            (self.out / RESULTS, text),
            (self.out / SUMMARY, summary(self.results)),
            (self.work / RESULTS, text),
        ):
            partial = path.with_name(f".{path.name}.partial")
            partial.write_text(content, encoding="utf-8")
            partial.replace(path)

    def say(self, text: str) -> None:
        line = f"[{time.monotonic() - self.begun:5.0f} s] {text}"
        print(line, flush=True)
        with (self.out / LOG).open("a", encoding="utf-8") as log:
            log.write(f"\n==== {line}\n")

    # ---- Commands ----------------------------------------------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        """What the commands start with: the packs' packages and programs, and a cache of the kit's own."""
        found = dict(os.environ)
        packages = [str(self.work / "site"), str(ROOT), *filter(None, [found.get("PYTHONPATH")])]
        paths = [str(self.work / "bin"), found.get("PATH", "")]
        return {
            **found,
            "PYTHONPATH": os.pathsep.join(packages),
            "PATH": os.pathsep.join(paths),
            "AUTORESEARCH_CACHE": str(self.work / "cache"),
            "PYTHONUNBUFFERED": "1",
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # tests of both frameworks run in one process
        }

    def call(self, words: Sequence[str], seconds: float) -> Done:
        """Runs a Python command for at most so many seconds; what it prints goes to the log as well."""
        seconds = max(1.0, min(seconds, self.deadline - time.monotonic() - GRACE))
        printed = self.work / "printed"
        with printed.open("w", encoding="utf-8") as out, (self.out / LOG).open("a", encoding="utf-8") as log:
            log.write(f"$ python {' '.join(words)}    # at most {seconds:.0f} s\n")
            log.flush()
            begin = log.tell()
            self.running = subprocess.Popen(
                [sys.executable, *words],
                stdout=out,
                stderr=log,
                stdin=subprocess.DEVNULL,
                text=True,
                cwd=ROOT,
                env=self.environment(),
                start_new_session=True,
            )
            try:
                self.running.wait(seconds)
                over = False
            except subprocess.TimeoutExpired:
                over = True
            status = self.end_running()
        said = printed.read_text(encoding="utf-8", errors="replace")
        with (self.out / LOG).open("rb") as read:
            read.seek(begin)
            errors = [line for line in read.read().decode(errors="replace").splitlines() if line.strip()]
        with (self.out / LOG).open("a", encoding="utf-8") as log:
            log.write(f"{said}\n# exit status {status}{', ended at its limit' if over else ''}\n")
        self.trim_log()
        own = [line for line in errors if line.startswith("autoresearch: ")] or errors[-1:]
        return Done(status, said, own[-1].strip()[:500] if own else "", over)

    def end_running(self) -> int:
        """Ends the command that runs, in order if it can, with all that it started."""
        running = self.running
        if running is None:
            return 0
        if running.poll() is None:
            running.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.wait(GRACE)
        if os.name == "posix":
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(running.pid, signal.SIGKILL)
        else:
            running.kill()
        status = running.wait()
        self.running = None
        return status

    def trim_log(self) -> None:
        """Keeps the log small enough to be fetched: its beginning and its end."""
        log = self.out / LOG
        if log.stat().st_size > LOG_BYTES:
            content = log.read_bytes()
            log.write_bytes(content[: LOG_BYTES // 4] + b"\n[...]\n" + content[-LOG_BYTES // 2 :])

    def autoresearch(self, *words: str, seconds: float) -> Done:
        return self.call(["-m", "autoresearch", *words], seconds)

    def common(self) -> list[str]:
        return ["--preset", self.sizes.preset, "--corpus", CORPUS]

    # ---- The run -----------------------------------------------------------------------------------------------------

    def run(self, steps: Sequence[Step]) -> None:
        """Does the steps; each one that fails or runs over costs only itself."""
        spent: dict[str, float] = {}
        for step in steps:
            self.results["steps"] = [one for one in self.results["steps"] if one["name"] != step.name]
            entry: dict[str, Any] = {"name": step.name, "about": step.about, "state": "running"}
            self.results["steps"] = sorted([*self.results["steps"], entry], key=lambda one: place_of(one["name"]))
            left = self.deadline - time.monotonic() - GRACE
            if step.group:
                left = min(left, GROUP_SECONDS[step.group] - spent.get(step.group, 0.0))
            if left < step.least:
                entry |= {"state": "left out", "why": f"{max(0, left):.0f} s were left, it needs {step.least:.0f}"}
                self.save()
                continue
            allowed = min(step.seconds, left)
            entry["limit"] = round(allowed, 1)
            self.save()
            self.say(f"{step.name}: {step.about}, at most {allowed:.0f} s")
            begun = time.monotonic()
            with self.recorded(entry):
                entry["found"] = step.work(self, allowed)
                entry["state"] = "ok"
            entry["seconds"] = round(time.monotonic() - begun, 1)
            spent[step.group] = spent.get(step.group, 0.0) + entry["seconds"]
            self.save()
            self.say(f"{step.name} {entry['state']}: {outcome(entry)}")

    @contextlib.contextmanager
    def recorded(self, entry: dict[str, Any]) -> Iterator[None]:
        """Records how a step ended: nothing but a signal ends the run."""
        try:
            yield
        except StepError as error:
            entry |= {"state": "failed", "why": str(error), **({"found": error.found} if error.found else {})}
        except (KeyboardInterrupt, SystemExit):
            entry |= {"state": "interrupted"}
            raise
        except Exception as error:  # noqa: BLE001  a mistake in a step must not cost the others
            entry |= {"state": "failed", "why": f"{type(error).__name__}: {error}"}


def machine() -> dict[str, Any]:
    """What the kit itself sees of the machine; `doctor` says the rest."""
    found: dict[str, Any] = {"python": platform.python_version(), "system": platform.platform(), "cpus": os.cpu_count()}
    with contextlib.suppress(OSError, ValueError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found["memory_gb"] = round(int(lines[0].split()[1]) / 1e6, 1)
    command = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.max.sm", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        found["gpus"] = done.stdout.strip().splitlines()
    found["git"] = shutil.which("git") or "not here"
    found["utc"] = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    return found


# ---- Steps -----------------------------------------------------------------------------------------------------------


def last_json(text: str) -> dict[str, Any] | None:
    """The JSON object that a command printed, alone or in its last line."""
    for part in (text, *text.strip().splitlines()[-1:]):
        with contextlib.suppress(ValueError):
            found = json.loads(part)
            return found if isinstance(found, dict) else None
    return None


def answer(done: Done, what: str) -> dict[str, Any]:
    """What a command answered as JSON. StepError if it has no answer."""
    if (found := last_json(done.printed)) is not None:
        return found
    raise StepError(f"{what} {done}")


def prepare(kit: Kit, seconds: float) -> dict[str, Any]:
    missing = gpu_pack.still_missing(kit.environment())
    words = ["prepare", *kit.common(), "--json"]
    try:
        found = answer(kit.autoresearch(*words, seconds=seconds), "prepare")
    except StepError as error:
        lacks = f"; missing here: {', '.join(missing)}" if missing else ""
        raise StepError(f"{error}{lacks}") from None
    return {"missing": missing, "splits": found.get("splits"), "vocabulary": found.get("vocabulary")}


def doctor(kit: Kit, seconds: float) -> dict[str, Any]:
    return answer(kit.autoresearch("doctor", "--preset", kit.sizes.preset, "--json", seconds=seconds), "doctor")


def scored(done: Done, what: str) -> dict[str, Any]:
    """The record of a trial. StepError with the record if it has no score."""
    record = answer(done, what)
    if record.get("verdict") != "scored":
        raise StepError(f"the trial is {record.get('verdict')}: {record.get('reason')}", record)
    return record


def train(kit: Kit, seconds: float, *words: str, budget: float | None = None) -> dict[str, Any]:
    """One trial of `autoresearch train`."""
    device = ["--device", kit.device, "--budget", str(budget or kit.sizes.budget), "--json", *kit.sandbox]
    return scored(kit.autoresearch("train", *kit.common(), *device, *words, seconds=seconds), "the trial")


def cold(kit: Kit, seconds: float) -> dict[str, Any]:
    """The first trial, on an empty compile cache. If it crashes only when confined, the run goes on unconfined."""
    shutil.rmtree(kit.work / "cache" / "compiled", ignore_errors=True)
    begun = time.monotonic()
    try:
        return train(kit, seconds)
    except StepError as error:
        left = seconds - (time.monotonic() - begun)
        if (error.found or {}).get("verdict") != "crash" or left < 30:
            raise
        kit.sandbox = ["--no-sandbox"]
        try:
            return {**train(kit, left), "confined_failed": str(error)}
        except StepError as again:
            kit.sandbox = []
            raise StepError(f"confined: {error}. With --no-sandbox: {again}", error.found) from None


def profile(kit: Kit, seconds: float) -> dict[str, Any]:
    path, trace = kit.out / PROFILE, kit.out / TRACE
    path.unlink(missing_ok=True)
    words = ["--preset", kit.sizes.preset, "--device", kit.device, "--out", str(path), "--trace", str(trace)]
    done = kit.call(["-m", "benchmarks.gpu_profile", *words], seconds)
    if trace.exists() and trace.stat().st_size > LOG_BYTES:
        trace.unlink()
    found = last_json(path.read_text(encoding="utf-8")) if path.exists() else None
    if found is None or "profile" not in found:
        raise StepError(f"the profile {done}", found)
    return found


def variant(name: str) -> Callable[[Kit, float], dict[str, Any]]:
    def work(kit: Kit, seconds: float) -> dict[str, Any]:
        words = [name, *kit.common(), "--device", kit.device, "--budget", str(kit.sizes.variant), *kit.sandbox]
        return scored(kit.call(["-m", "benchmarks.gpu_variants", *words], seconds), f"variant {name}")

    return work


def tests(kit: Kit, seconds: float) -> dict[str, Any]:
    """The tests that only a GPU can pass."""
    report = kit.work / "tests.xml"
    report.unlink(missing_ok=True)
    options = ["-m", "gpu", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    done = kit.call(["-m", "pytest", "tests/backends", *options], seconds)
    if not report.exists():
        raise StepError(f"pytest {done}")
    found: dict[str, Any] = {"passed": 0, "failed": [], "skipped": []}
    for case in ET.parse(report).iter("testcase"):
        name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
        bad = case.find("failure") if case.find("failure") is not None else case.find("error")
        skip = case.find("skipped")
        if bad is not None:
            found["failed"].append({"test": name, "why": (bad.get("message") or "").strip()[:500]})
        elif skip is not None:
            found["skipped"].append({"test": name, "why": (skip.get("message") or "")[:200]})
        else:
            found["passed"] += 1
    return found


def jax(kit: Kit, seconds: float) -> dict[str, Any]:
    return train(kit, seconds, "--set", "backend=jax", budget=kit.sizes.variant)


def auto(kit: Kit, seconds: float) -> dict[str, Any]:
    words = ["presets", "auto", "--again", "--json", "--device", kit.device]
    return answer(kit.autoresearch(*words, seconds=seconds), "presets auto")


def campaign(kit: Kit, seconds: float) -> dict[str, Any]:
    """Four experiments; as many as fit, if they don't."""
    folder = kit.work / f"campaign-{kit.device}"
    shutil.rmtree(folder, ignore_errors=True)
    words = ["--device", kit.device, "--budget", str(kit.sizes.campaign), "--experiments", "4", *kit.sandbox]
    begun = time.monotonic()
    done = kit.autoresearch("run", str(folder), *kit.common(), *words, seconds=seconds - 30)
    taken = time.monotonic() - begun
    if not folder.exists():
        raise StepError(f"the campaign {done}")
    status = answer(kit.autoresearch("status", str(folder), "--json", seconds=30), "status")
    found = {"over": done.over, "run_status": done.status, "run_seconds": round(taken, 1), "status": status}
    if not status["experiments"]:
        raise StepError(f"the campaign {done}", found)
    return found


# In the order of their worth. Limits are for an H100 whose first compilation takes two minutes.
STEPS = (
    Step(name="prepare", about="packages, and the corpus encoded", seconds=120, least=5, work=prepare),
    Step(name="doctor", about="what is here and what is chosen", seconds=45, least=10, work=doctor),
    Step(name="cold", about="a trial that compiles everything", seconds=240, least=30, work=cold),
    Step(name="warm", about="the same trial again", seconds=90, least=20, work=train),
    Step(name="profile", about="where three steps spend their time", seconds=100, least=30, work=profile),
    *(
        Step(name=name, about=one.why, seconds=75, least=35, work=variant(name), group="variants")
        for name, one in VARIANTS.items()
    ),
    Step(name="tests", about="pytest -m gpu", seconds=90, least=30, work=tests),
    Step(name="jax", about="the same shapes in JAX", seconds=120, least=45, work=jax),
    Step(name="auto", about="presets auto", seconds=100, least=60, work=auto),
    Step(name="campaign", about="four experiments", seconds=240, least=60, work=campaign),
)
GROUP_SECONDS = {"variants": 150.0}


def place_of(name: str) -> int:
    """Where a step stands among all."""
    known = [step.name for step in STEPS]
    return known.index(name) if name in known else len(known)


def chosen(only: Sequence[str], skip: Sequence[str], done: Sequence[str] = ()) -> list[Step]:
    """The steps that the options name, in their order. KitError for a name that is none.

    `prepare` is always among them unless it is skipped: without the corpus nothing trains.
    """
    groups = {step.group for step in STEPS if step.group}
    known = [*(step.name for step in STEPS), *groups]
    if unknown := [name for name in (*only, *skip) if name not in known]:
        raise KitError(f"expected steps among {', '.join(known)}, got {', '.join(unknown)}")
    named = [step for step in STEPS if not only or step.is_named(only) or step.name == "prepare"]
    return [step for step in named if not step.is_named(skip) and (step.name not in done or step.name == "prepare")]


# ---- What a person reads ---------------------------------------------------------------------------------------------


def outcome(entry: Mapping[str, Any]) -> str:
    """One line: a step's figures, or why it has none."""
    if entry["state"] != "ok":
        return str(entry.get("why", ""))
    found = entry.get("found") or {}
    if "tokens_per_second" in found and "wall_seconds" in found:
        return trial_line(found)
    if "profile" in found:
        return profile_line(found)
    if "backends" in found:
        return doctor_line(found)
    if "passed" in found:
        return f"{found['passed']} passed, {len(found['failed'])} failed, {len(found['skipped'])} skipped"
    if "run_seconds" in found:
        status = found["status"]
        return f"{status.get('experiments')} experiments in {found['run_seconds']:.0f} s, {bpb(status, 'champion_bpb')}"
    if "depth" in found:
        return f"depth {found['depth']}, {found['total_batch_size']} tokens a step, {found['device_batch_size']} rows"
    if "missing" in found:
        return f"missing: {', '.join(found['missing'])}" if found["missing"] else "all is here"
    return "ok"


def trial_line(found: Mapping[str, Any]) -> str:
    memory, mfu = found.get("peak_memory_mb"), found.get("mfu")
    choices = found.get("choices") or {}
    named = ", ".join(
        str(choices[name]).partition(" (")[0] for name in ("kernel", "dtype", "compile") if name in choices
    )
    parts = [
        f"{found['tokens_per_second'] or 0:,.0f} tokens/s",
        f"MFU {mfu:.1%}" if mfu is not None else "MFU unknown",
        f"{found['steps']} steps",
        f"{memory / 1024:.1f} GB" if memory is not None else "memory unknown",
        bpb(found, "val_bpb"),
        f"start-up {found['startup_seconds']:.1f} s",
        f"training {found['train_seconds']:.1f} s",
        f"scoring {found['score_seconds']:.1f} s",
        f"wall {found['wall_seconds']:.1f} s",
        *filter(None, [named, "not confined" if found.get("confined_failed") else ""]),
    ]
    return "; ".join(parts)


def doctor_line(found: Mapping[str, Any]) -> str:
    parts = ["ready" if found["ready"] else f"not ready: {'; '.join(map(str, found['first']))}"]
    for name, one in found["backends"].items():
        if one.get("missing") is None and "error" not in one and one.get("choices"):
            named = ", ".join(str(choice).partition(" (")[0] for choice in one["choices"].values())
            parts.append(f"{name} {one['versions'].get(name)} on {one['device_name']}: {named}")
    return "; ".join([*parts, f"sandbox {found['sandbox']['tier']}"])


def bpb(found: Mapping[str, Any], key: str) -> str:
    return f"{found[key]:.4f} bpb" if found.get(key) is not None else "no score"


def profile_line(found: Mapping[str, Any]) -> str:
    of = found["profile"]
    shares = ", ".join(f"{name} {share:.0%}" for name, share in of["share"].items())
    gap = of["gap_between_steps_ms"]
    ceilings = found.get("ceilings") or {}
    return (
        f"a step {found['step_ms']:.1f} ms: {shares}; idle within {of['idle_in_step_ms'] or 0:.1f} ms, between "
        f"{gap or 0:.1f} ms; {of['launches']:.0f} launches; ceilings {ceilings.get('tflops', 0):.3g} TFLOP/s, "
        f"{ceilings.get('copy_gb_s', 0):,.0f} GB/s"
    )


def summary(results: Mapping[str, Any]) -> str:
    """The results as text, a step a paragraph."""
    here = results["machine"]
    head = [*here.get("gpus", ["no GPU"]), f"Python {here['python']}", f"{here['cpus']} processors", here["utc"]]
    lines = [
        f"autoresearch on {results['device']}: preset {results['preset']}, corpus {results['corpus']}",
        ", ".join(head),
        "",
    ]
    for entry in results["steps"]:
        seconds = f"{entry['seconds']:6.1f} s" if "seconds" in entry else " " * 8
        lines.append(f"{entry['name']:13} {entry['state']:11} {seconds}  {outcome(entry)}")
        found = entry.get("found") or {}
        lines += [f"    {one['test']}: {one['why'].splitlines()[:1]}" for one in found.get("failed", [])]
        lines += [
            f"    attention by {name}: {attention_words(one)}" for name, one in found.get("attention", {}).items()
        ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def attention_words(found: Any) -> str:
    if isinstance(found, dict):
        return f"forward {found['forward_ms']:.2f} ms, forward and backward {found['both_ms']:.2f} ms"
    return str(found)


# ---- The command -----------------------------------------------------------------------------------------------------


def run_command(options: argparse.Namespace) -> int:
    """Status 0 if all steps were done, 1 if one failed or was left out."""
    sizes = SIZES[options.device]
    if options.preset:
        sizes = Sizes(**{**sizes.__dict__, "preset": options.preset})
    work, out = options.work.absolute(), options.out.absolute()
    for folder in (work, out):
        folder.mkdir(parents=True, exist_ok=True)
    kit = Kit(out=out, work=work, device=options.device, sizes=sizes, limit=options.limit)
    done: list[str] = []
    if options.rest and (work / RESULTS).exists():
        earlier = json.loads((work / RESULTS).read_text(encoding="utf-8"))
        kit.results["steps"] = earlier["steps"]
        done = [one["name"] for one in earlier["steps"] if one["state"] in DONE]
    steps = chosen(options.only, options.skip, done)
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    packs = options.pack or gpu_pack.parts_beside(ROOT / "gpu-kit")
    try:
        kit.results["pack"] = gpu_pack.unpack(packs, work)
        kit.save()
        kit.run(steps)
    except KeyboardInterrupt:
        print("gpu_kit: interrupted; what was measured is kept", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)
        kit.end_running()
        kit.save()
        files = ", ".join(sorted(path.name for path in out.iterdir()))
        print(f"\n{(out / SUMMARY).read_text(encoding='utf-8')}\n{out}: {files}", flush=True)
    return 0 if all(one["state"] in DONE for one in kit.results["steps"]) else 1


def pack_command(options: argparse.Namespace) -> int:
    folders = gpu_pack.pack(options.into.absolute(), have=options.have, also=options.also, part_mb=options.part_mb)
    print("\n".join(gpu_pack.listing(folders)))
    return 0


def names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def parser() -> argparse.ArgumentParser:
    described = argparse.RawDescriptionHelpFormatter
    whole = argparse.ArgumentParser(description=__doc__, formatter_class=described)
    commands = whole.add_subparsers(dest="command", required=True)
    make = commands.add_parser("pack", help="make the pack; needs a package index")
    make.add_argument("--into", type=Path, default=ROOT / "gpu-kit", metavar="FOLDER", help="default: gpu-kit")
    make.add_argument("--have", type=Path, metavar="FILE", help="`pip list --format=freeze` of the other machine")
    make.add_argument("--also", type=names, default=[], metavar="NAMES", help=f"also {', '.join(gpu_pack.EXTRAS)}")
    make.add_argument("--part-mb", type=int, default=gpu_pack.PART_MB, metavar="MB", help="most in one folder")
    use = commands.add_parser("run", help="measure everything; needs no network")
    use.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "gpu-results")), metavar="FOLDER")
    use.add_argument("--pack", type=Path, action="append", metavar="FOLDER", help="default: gpu-kit and its parts")
    work = Path(tempfile.gettempdir()) / "autoresearch-gpu"
    use.add_argument("--work", type=Path, default=work, metavar="FOLDER", help=f"for caches; default: {work}")
    use.add_argument("--only", type=names, default=[], metavar="STEPS", help=", ".join(step.name for step in STEPS))
    use.add_argument("--skip", type=names, default=[], metavar="STEPS")
    use.add_argument("--rest", action="store_true", help="only what an earlier run on this machine has not done")
    use.add_argument("--limit", type=float, default=LIMIT, metavar="SECONDS", help=f"for all; default: {LIMIT}")
    use.add_argument("--device", choices=sorted(SIZES), default="cuda", help="cpu rehearses with a small preset")
    use.add_argument("--preset", metavar="NAME", help="default: h100, on the processor smoke")
    return whole


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        return pack_command(options) if options.command == "pack" else run_command(options)
    except KitError as error:
        print(f"gpu_kit: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
