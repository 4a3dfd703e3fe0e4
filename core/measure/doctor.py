"""Examines this machine for `autoresearch doctor`: what is here, and what is missing.

Prints nothing and uses no network. Changes nothing, but removes what killed runs left among the temporary files. A GB
of memory and disk is 2**30 bytes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import psutil

import backends
import core
import presets
from core.data.corpora.hub import HubCorpus
from core.data.corpora.registry import NAMES, find
from core.data.dataset import Dataset, prepared
from core.records import Choice, DeviceName, Preset, UserError
from core.sandbox import janitor, tier
from core.sandbox.selftest import check
from core.store import git_program
from core.system import accelerators, hardware, install
from core.system.conditions import HostLoad
from core.system.files import cache_root
from core.trial.bytecode import uncompiled
from core.trial.probe import probe
from presets import cost, devices, estimate

Level = Literal["ok", "warning", "missing"]
Section = dict[str, Any]  # of the report, as JSON
Here = Sequence[accelerators.Accelerator]

LOW_DISK_GB = 5.0
NO_DISK_GB = 0.5  # less than the weights and caches of one small trial
SAMPLE_SECONDS = 0.5
BUSY_SHARE = 0.25  # of the cores, used by other processes: then trials are slowed
BUSY_PROCESS = 0.2  # of one core: processes that use more are named
BUSY_ACCELERATOR = 0.1
GB = 2**30


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """One line of the report: its subject, its status, and what fixes it."""

    subject: str
    status: Level
    message: str
    fix: str = ""  # a command, or what to do
    blocks: bool = False  # no trial of the preset can run like this


@dataclass(kw_only=True)
class Report:
    """All facts, and a diagnosis a line, in the order in which they are printed."""

    preset: str
    facts: Section = field(default_factory=dict)
    diagnoses: list[Diagnosis] = field(default_factory=list)

    def add(self, subject: str, message: str, status: Level = "ok", fix: str = "", *, blocks: bool = False) -> None:
        """Appends a diagnosis."""
        self.diagnoses.append(Diagnosis(subject=subject, status=status, message=message, fix=fix, blocks=blocks))

    @property
    def first(self) -> list[str]:
        """What to do before a trial can run; empty if one can."""
        return [f"{one.subject}: {one.fix or one.message}" for one in self.diagnoses if one.blocks]

    def json(self) -> Section:
        """The report for `--json`."""
        findings = [
            {"about": one.subject, "mark": one.status, "told": one.message, "mend": one.fix, "blocks": one.blocks}
            for one in self.diagnoses
        ]
        return {"ready": not self.first, "preset": self.preset, "first": self.first, **self.facts, "findings": findings}


def examine(
    preset: Preset, origin: str = "", *, name: str = "", on_stage: Callable[[str], None] = lambda stage: None
) -> Report:
    """Examines this machine for trials of `preset`, which --preset calls `name`. Calls `on_stage` before each part.

    `origin` says where the preset's values come from if that is not its file.
    """
    on_stage("load")
    here = accelerators.accelerators()
    load = examine_load(here)  # before this process adds to it
    report = Report(preset=preset.name)
    on_stage("machine")
    _examine_machine(report, here)
    _examine_python(report)
    _examine_git(report)
    on_stage(f"backends: {', '.join(backends.names())}")
    names = backends.names()
    with ThreadPoolExecutor(len(names)) as threads:  # each reports from a process of its own, all at once
        probed = dict(zip(names, threads.map(probe, names), strict=True))
    _examine_backends(report, probed, here)
    on_stage(f"preset {preset.name}")
    _examine_preset(report, preset, origin, probed[preset.backend], here)
    on_stage("data")
    _examine_data(report, preset, name or preset.name)
    _examine_disk(report)
    report.facts |= load.facts
    report.diagnoses += load.diagnoses
    _examine_sandbox(report)
    return report


def _examine_machine(report: Report, here: Here) -> None:
    memory = psutil.virtual_memory()
    peak = hardware.matrix_flops()
    system, processor, cores = _system(), hardware.processor(), hardware.cores()
    report.facts["machine"] = {
        "os": system,
        "processor": processor,
        "cores": cores,
        "memory_gb": memory.total / GB,
        "free_gb": memory.available / GB,
        "accelerators": [dataclasses.asdict(one) for one in here],
        "matrix_flops": peak,
    }
    size = f"{memory.total / GB:.1f} GB of memory, {memory.available / GB:.1f} free"
    report.add("machine", f"{system}; {processor}, {cores} cores; {size}")
    for one in here:
        free = f", {one.free_gb:.1f} free" if one.free_gb is not None else ""
        driver = f", driver {one.driver}" if one.driver else ""
        report.add("accelerator", f"{one.name}: {one.memory_gb:.1f} GB{free}{driver}")
    if not here:
        report.add("accelerator", "none found: trials run on the processor")
    report.add("matrix peak", f"{peak / 1e9:,.0f} GFLOP/s in float32, which is 100 % MFU on the processor")


def _system() -> str:
    name = ""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            name = platform.freedesktop_os_release().get("PRETTY_NAME", "") + ", "
    if sys.platform == "darwin":
        return f"macOS {platform.mac_ver()[0]} {platform.machine()}"
    return f"{name}{platform.system()} {platform.release()} {platform.machine()}"


def _examine_python(report: Report) -> None:
    try:
        version = metadata.version("autoresearch")
    except metadata.PackageNotFoundError:
        version = "not installed"
    python, folder = platform.python_version(), str(Path(core.__file__).parent.parent)
    report.facts["python"] = {"version": python, "autoresearch": version, "folder": folder}
    report.add("python", f"{python} at {sys.executable}; autoresearch {version} in {folder}")


def _examine_git(report: Report) -> None:
    try:
        found = git_program.find()
    except UserError as error:
        report.facts["git"] = {"path": shutil.which("git"), "version": None}
        report.add("git", str(error), "missing", blocks=True)
        return
    report.facts["git"] = {"path": found.path, "version": found.version}
    report.add("git", found.version)


def _examine_backends(report: Report, probed: Mapping[str, Section], here: Here) -> None:
    report.facts["backends"] = facts = {
        name: {"missing": backends.get(name).missing(), **found} for name, found in probed.items()
    }
    for name, found in facts.items():
        if found["missing"]:
            report.add(name, found["missing"], "missing")
            continue
        if "error" in found:
            report.add(name, f"installed, but it fails: {found['error']}", "missing")
            continue
        version = found["versions"].get(name, "version unknown")
        _examine_bytecode(report, name)
        choices = "".join(f"; {key} {choice}" for key, choice in found["choices"].items())
        report.add(name, f"{version} on {found['device']} ({found['device_name']}){choices}")
        drives = (one for one in here if name in dict(devices.DRIVERS[one.kind]))
        if found["device"] == "cpu" and (unseen := next(drives, None)) is not None:
            fix = f"install a build of {name} for {unseen.kind} that fits the driver {unseen.driver}".rstrip()
            report.add(name, f"{unseen.name} is here, but this {name} does not find it", "warning", fix)


def _examine_bytecode(report: Report, backend: str) -> None:
    """Whether its libraries are compiled. Not the sandbox's, but the installation's doing."""
    found = uncompiled(backend)
    report.facts.setdefault("bytecode", {})[backend] = {"missing": len(found.files) if found else 0}
    if found is None:
        return
    message = (
        f"{len(found.files):,} of {found.of:,} files of its libraries have no bytecode: every process parses them again"
    )
    fix = (
        "the next run or `autoresearch prepare` compiles them"
        if found.writable
        else f"as who owns them: {found.command}"
    )
    report.add(backend, message, "warning", fix)


def _examine_preset(report: Report, preset: Preset, origin: str, auto: Section, here: Here) -> None:
    """Whether the preset can run here; `auto` is what its backend reports if it chooses the device."""
    report.facts["chosen"] = facts = {
        key: getattr(preset, key) for key in ("backend", "device", "corpus", "vocabulary")
    }
    same = preset.device == "auto" or auto.get("device") == preset.device or backends.get(preset.backend).missing()
    found = auto if same else probe(preset.backend, preset.device)
    subject = f"preset {preset.name}"
    message = f"{preset.backend} on {preset.device}" + (f" ({origin})" if origin else "")
    if "error" in found:
        facts["error"] = found["error"]
        report.add(subject, f"{message} can't run here: {found['error']}", "missing", blocks=True)
        return
    needs = _memory_gb(preset, found["choices"])
    usable, free = _room(preset.backend, found["device"], found["device_name"], here)
    facts |= {"resolved": found["device"], "memory_gb": needs, "usable_gb": usable, "free_gb": free}
    status: Level = "ok"
    fix = ""
    if needs is not None:
        message += f"; takes about {needs:.1f} GB" + (f" of {usable:.1f}" if usable is not None else "")
        if usable is not None and needs > estimate.MOST_MEMORY * usable:
            status, fix = "warning", "a smaller preset, or --set device_batch_size=N with a smaller N"
        elif free is not None and needs > free:
            status, fix = "warning", f"only {free:.1f} GB are free now: end the processes that hold the rest"
    report.add(subject, message, status, fix)
    best = max(here, key=lambda one: one.memory_gb, default=None)
    if best is not None and found["device"] == "cpu":
        known = devices.matching(best.name, best.memory_gb)
        better = known.key if known is not None else "auto"
        report.add(subject, f"{best.name} is here, and this preset leaves it idle", "warning", f"--preset {better}")


def _room(backend: str, device: str, name: str, here: Here) -> tuple[float | None, float | None]:
    """Memory in GB of a backend's device that a trial may use, and how much is free now; None if unknown."""
    place = DeviceName.parse(device)
    kind = place.kind
    if kind == "cpu":
        memory = psutil.virtual_memory()
        return memory.total / GB, memory.available / GB
    driven = [one for one in here if (backend, kind) in devices.DRIVERS[one.kind]]
    mine = [one for one in driven if one.name == name] or driven  # the framework may order them differently
    if not mine:
        return None, None
    one = mine[min(place.index or 0, len(mine) - 1)]
    return devices.like(one.kind, one.name, one.memory_gb, backend, kind).usable_gb, one.free_gb


def _memory_gb(preset: Preset, choices: Mapping[str, str]) -> float | None:
    """Estimated memory of a trial of the reference trainer; None for backends without an estimate."""
    if preset.backend not in cost.ACTIVATIONS:
        return None
    kernel, dtype, compiler = (Choice.parse(choices.get(key, "")).value for key in ("kernel", "dtype", "compile"))
    return cost.memory_gb(preset, kernel, dtype, compiled=compiler == "inductor") if dtype in cost.BYTES else None


def _examine_data(report: Report, preset: Preset, name: str) -> None:
    report.facts["data"] = facts = {}
    vocabularies = {preset.vocabulary, *(presets.load(one).vocabulary for one in presets.names())}
    for corpus in dict.fromkeys([preset.corpus, *(one for one in NAMES if ":" not in one)]):
        whole: dict[int, Dataset] = {}
        error = ""
        try:
            for vocabulary in sorted(vocabularies):
                if (dataset := prepared(corpus, vocabulary)) is not None:
                    whole[vocabulary] = dataset
        except (UserError, OSError) as failure:
            error = str(failure)
        needed = corpus == preset.corpus
        size = sum(map(_stored, whole.values()))
        facts[corpus] = {"vocabularies": list(whole), "bytes": size, "error": error or None}
        subject = f"corpus {corpus}"
        if error:
            report.add(subject, error, "missing", blocks=needed)
        elif whole and (not needed or preset.vocabulary in whole):
            report.add(subject, f"prepared with {' and '.join(map(str, whole))} token ids, {_size(size)}")
        else:
            online = "" if corpus.startswith("folder:") else ", online"
            install = _missing_packages(corpus)
            command = f"autoresearch prepare --preset {name}" + ("" if needed else f" --corpus {corpus}")
            report.add(
                subject,
                f"not prepared with {preset.vocabulary} token ids; a first run does it{online}",
                "missing",
                f"{install}, then {command}" if install else command,
                blocks=needed and bool(install),
            )


def _missing_packages(corpus: str) -> str:
    """The command that installs what downloading the corpus needs; empty if nothing is missing."""
    there = all(importlib.util.find_spec(name) for name in ("huggingface_hub", "pyarrow"))
    return install.command("hub") if isinstance(find(corpus), HubCorpus) and not there else ""


def _stored(dataset: Dataset) -> int:
    """Bytes of a dataset's files without its tokenizer and manifests, which are some kilobytes."""
    held_out = sum(part.values.nbytes + part.offsets.nbytes for part in (dataset.val, dataset.test))
    return held_out + sum(values.nbytes for values in dataset.train.values) + dataset.train.starts.nbytes


def _examine_disk(report: Report) -> None:
    root = cache_root()
    sizes: dict[str, int] = {}
    with contextlib.suppress(OSError):
        sizes = {path.name: _size_of(path) for path in sorted(root.iterdir()) if path.is_dir()}
    total = sum(sizes.values())
    report.facts["cache"] = {"folder": str(root), "bytes": total, "parts": sizes}
    largest = sorted((size, name) for name, size in sizes.items() if size)[::-1][:4]
    message = f"{root}: {_size(total)}" if root.exists() else f"{root}: not there yet"
    message += f" ({', '.join(f'{name} {_size(size)}' for size, name in largest)})" if largest else ""
    if os.access(_existing(root), os.W_OK):
        report.add("cache", message)
    else:
        fix = f"{root} can't be written to: set AUTORESEARCH_CACHE to a folder that can"
        report.add("cache", message, "missing", fix, blocks=True)
    removed = janitor.clean()
    report.facts["removed"] = dataclasses.asdict(removed)
    if removed:
        report.add("disk", str(removed))
    report.facts["disk"] = disk = {}
    for place, path, words in (("cache", root, "the cache"), ("here", Path.cwd(), "this folder")):
        free = shutil.disk_usage(_existing(path)).free / GB
        disk[place] = {"folder": str(path), "free_gb": free}
        status: Level = "ok" if free >= LOW_DISK_GB else "warning" if free >= NO_DISK_GB else "missing"
        fix = "" if status == "ok" else f"free some: under {LOW_DISK_GB:g} GB a night's campaign may fill the disk"
        report.add("disk", f"{free:.1f} GB free for {words}", status, fix, blocks=status == "missing")


def _size_of(folder: Path) -> int:
    """Bytes of all files below; files that vanish meanwhile are not counted."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += Path(parent, name).lstat().st_size
    return total


def _existing(path: Path) -> Path:
    return next((one for one in (path, *path.parents) if one.exists()), path)


def _size(size: float) -> str:
    return f"{size / GB:.1f} GB" if size >= 0.95 * GB else f"{size / 2**20:.1f} MB"


def _examine_sandbox(report: Report) -> None:
    """The sandbox that trials get, whether it works, and what it can't prevent."""
    found, result = tier.available(), check()
    report.facts["sandbox"] = {
        "tier": found.name,
        "unenforced": list(found.unenforced),
        "why": found.why,
        **dataclasses.asdict(result),
    }
    if not found.enforced:
        fix = "run only agents that you would let run a script"
        report.add("sandbox", f"none: trials run with your rights ({found.why})", "warning", fix)
        return
    if result.error:
        fix = "--no-sandbox runs trials with your rights, and every record says so"
        report.add("sandbox", result.error, "missing", fix, blocks=True)
        return
    report.add("sandbox", f"{found.name}; it can't keep a trial from: {', '.join(found.unenforced)}")
    needs = "it needs root or user namespaces"
    if not result.shared_memory:
        message = f"no private /dev/shm ({needs}): a trainer's process pools and locks fail"
        report.add("sandbox", message, "warning")
    if not result.loopback:
        message = f"no network namespace for each trial ({needs}): a trainer's sockets on 127.0.0.1 are refused"
        report.add("sandbox", message, "warning")


def examine_load(here: Here) -> Report:
    """What else runs: the share of the cores that other processes use over half a second, and which do.

    The load average is a fact only: it stays high for minutes after work has ended, also after this command's own.
    """
    report = Report(preset="")
    cores = hardware.cores()
    minute = psutil.getloadavg()[0]
    others = [one for one in psutil.process_iter() if one.pid != os.getpid()]
    _used(others)
    host = HostLoad("")
    host.start()
    time.sleep(SAMPLE_SECONDS)
    used = host.stop().get("other_load", 0.0) * cores
    running = sorted(_used(others), key=lambda one: -one["cores"])[:3]
    users = [_name(pid) for pid in accelerators.users()]
    report.facts["load"] = {
        "load_average": minute,
        "cores": cores,
        "cores_in_use": used,
        "processes": running,
        "on_accelerators": users,
    }
    message = f"other processes use {used:.1f} of {cores} cores"
    if running:
        message += ": " + ", ".join(f"{one['name']} ({one['pid']}) {one['cores']:.1f}" for one in running)
    if used > BUSY_SHARE * cores:
        fix = "end the other processes: they take steps from every trial, from some more than from others"
        report.add("load", message, "warning", fix)
    else:
        report.add("load", message)
    for one in here:
        if one.busy is not None and one.busy > BUSY_ACCELERATOR:
            message = f"{one.name} is {one.busy:.0%} busy" + (f", with {', '.join(users)}" if users else "")
            report.add("load", message, "warning", "end what uses it, or wait")
    return report


def _used(processes: Iterable[psutil.Process]) -> list[Section]:
    """Processes that used much of a core since the last call. Names only: a command line may hold a secret."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.Error, OSError):
            taken = process.cpu_percent() / 100
            if taken > BUSY_PROCESS:
                found.append({"pid": process.pid, "name": process.name(), "cores": taken})
    return found


def _name(pid: int) -> str:
    with contextlib.suppress(psutil.Error, OSError):
        return f"{psutil.Process(pid).name()} ({pid})"
    return f"process {pid}"
