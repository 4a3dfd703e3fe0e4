"""What is here and what lacks: the facts behind `autoresearch doctor`.

Prints nothing, changes nothing, asks no network. A GB of memory and disk is 2**30 bytes.
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
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import psutil

import backends
import core
import presets
from core.data.corpora.hub import HubCorpus
from core.data.corpora.parquet import INSTALL
from core.data.corpora.registry import NAMES, find
from core.data.dataset import Dataset, prepared
from core.records import Preset, UserError
from core.sandbox import tier
from core.sandbox.selftest import check
from core.system import accelerators, hardware
from core.system.files import cache_root
from core.trial.probe import probe
from presets import cost, devices, estimate

Mark = Literal["ok", "warning", "missing"]
Tell = Callable[[str], None]
Facts = dict[str, Any]
Here = Sequence[hardware.Accelerator]

LOW_DISK_GB = 5.0
NO_DISK_GB = 0.5  # less than the weights and caches of one small trial
SAMPLE_SECONDS = 0.5
BUSY_SHARE = 0.25  # of the cores, by what runs beside: then a trial's number suffers
LOAD_SHARE = 0.5  # waiting or running, of the cores: the last minute's
BUSY_PROCESS = 0.2  # cores that a process takes to be named
BUSY_ACCELERATOR = 0.1
GB = 2**30


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line: what it is about, how it stands, and what mends it."""

    about: str
    mark: Mark
    told: str
    mend: str = ""  # a command, or what to do
    blocks: bool = False  # no trial of the preset can run like this


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that was found, in the order in which it is told."""

    preset: str
    facts: Facts
    findings: tuple[Finding, ...]

    @property
    def first(self) -> list[str]:
        """What to do before a trial can run; empty if one can."""
        return [f"{one.about}: {one.mend or one.told}" for one in self.findings if one.blocks]

    def json(self) -> Facts:
        """All of it in JSON's own types."""
        findings = [dataclasses.asdict(one) for one in self.findings]
        return {"ready": not self.first, "preset": self.preset, "first": self.first, **self.facts, "findings": findings}


def examine(preset: Preset, origin: str = "", *, name: str = "", tell: Tell = lambda stage: None) -> Report:
    """Looks at this machine for trials of `preset`, which --preset calls `name`; `tell` hears stages.

    `origin` says where its numbers come from if that is not its file.
    """
    tell("load")
    here = hardware.accelerators()
    load = load_here(here)  # before this process adds to it
    tell("machine")
    facts, findings = _machine(here)
    parts: Facts = {"machine": facts}
    for part, (facts, found) in (("python", _python()), ("git", _git())):
        parts[part] = facts
        findings += found
    tell(f"backends: {', '.join(backends.names())}")
    told = _described(backends.names())
    parts["backends"], found = _backends(told, here)
    findings += found
    tell(f"preset {preset.name}")
    parts["chosen"], found = _chosen(preset, origin, told[preset.backend], here)
    findings += found
    tell("data")
    parts["data"], found = _data(preset, name or preset.name)
    findings += found
    parts["cache"], parts["disk"], found = _disk()
    findings += found
    parts["load"] = load[0]
    findings += load[1]
    parts["sandbox"], found = _sandbox()
    findings += found
    return Report(preset=preset.name, facts=parts, findings=tuple(findings))


def _machine(here: Here) -> tuple[Facts, list[Finding]]:
    memory = psutil.virtual_memory()
    peak = hardware.matrix_flops()
    facts = {
        "os": _system(),
        "processor": hardware.processor(),
        "cores": hardware.cores(),
        "memory_gb": memory.total / GB,
        "free_gb": memory.available / GB,
        "accelerators": [dataclasses.asdict(one) for one in here],
        "matrix_flops": peak,
    }
    line = f"{facts['os']}; {facts['processor']}, {facts['cores']} cores"
    line += f"; {memory.total / GB:.1f} GB of memory, {memory.available / GB:.1f} free"
    findings = [Finding(about="machine", mark="ok", told=line)]
    for one in here:
        told = f"{one.name}: {one.memory_gb:.1f} GB"
        told += f", {one.free_gb:.1f} free" if one.free_gb is not None else ""
        told += f", driver {one.driver}" if one.driver else ""
        findings.append(Finding(about="accelerator", mark="ok", told=told))
    if not here:
        findings.append(Finding(about="accelerator", mark="ok", told="none found: trials run on the processor"))
    told = f"{peak / 1e9:,.0f} GFLOP/s in float32, what MFU on the processor is held against"
    findings.append(Finding(about="matrix peak", mark="ok", told=told))
    return facts, findings


def _system() -> str:
    name = ""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            name = platform.freedesktop_os_release().get("PRETTY_NAME", "") + ", "
    if sys.platform == "darwin":
        return f"macOS {platform.mac_ver()[0]} {platform.machine()}"
    return f"{name}{platform.system()} {platform.release()} {platform.machine()}"


def _python() -> tuple[Facts, list[Finding]]:
    try:
        version = metadata.version("autoresearch")
    except metadata.PackageNotFoundError:
        version = "not installed"
    folder = Path(core.__file__).parent.parent
    facts = {"version": platform.python_version(), "autoresearch": version, "folder": str(folder)}
    told = f"{platform.python_version()} at {sys.executable}; autoresearch {version} in {folder}"
    return facts, [Finding(about="python", mark="ok", told=told)]


def _git() -> tuple[Facts, list[Finding]]:
    path = shutil.which("git")
    version = accelerators.tool_output("git", "--version").strip().removeprefix("git version ")
    facts = {"path": path, "version": version or None}
    if version:
        return facts, [Finding(about="git", mark="ok", told=version)]
    told = "git is not on the PATH" if path is None else f"{path} is there, but `git --version` fails"
    mend = f"{told}; a campaign is a git repository. Install it"
    return facts, [Finding(about="git", mark="missing", told=told, mend=mend, blocks=True)]


def _described(names: Iterable[str]) -> dict[str, Facts]:
    """Each backend as a process of its own tells it, all at once."""
    every = list(names)
    with ThreadPoolExecutor(len(every)) as threads:
        return dict(zip(every, threads.map(probe, every), strict=True))


def _backends(told: Mapping[str, Facts], here: Here) -> tuple[Facts, list[Finding]]:
    findings = []
    facts = {name: {"missing": backends.get(name).missing(), **found} for name, found in told.items()}
    for name, found in facts.items():
        if found["missing"]:
            findings.append(Finding(about=name, mark="missing", told=found["missing"]))
        elif "error" in found:
            findings.append(Finding(about=name, mark="missing", told=f"installed, but it fails: {found['error']}"))
        else:
            line = f"{found['versions'].get(name, 'version unknown')} on {found['device']} ({found['device_name']})"
            line += "".join(f"; {key} {choice}" for key, choice in found["choices"].items())
            findings.append(Finding(about=name, mark="ok", told=line))
            drives = (one for one in here if name in dict(devices.DRIVERS[one.kind]))
            if found["device"] == "cpu" and (unseen := next(drives, None)) is not None:
                line = f"{unseen.name} is here, but this {name} does not find it"
                mend = f"install a build of {name} for {unseen.kind} that fits the driver {unseen.driver}".rstrip()
                findings.append(Finding(about=name, mark="warning", told=line, mend=mend))
    return facts, findings


def _chosen(preset: Preset, origin: str, auto: Facts, here: Here) -> tuple[Facts, list[Finding]]:
    """Whether the preset can run here; `auto` is what its backend would take by itself."""
    facts: Facts = {key: getattr(preset, key) for key in ("backend", "device", "corpus", "vocabulary")}
    same = preset.device == "auto" or auto.get("device") == preset.device or backends.get(preset.backend).missing()
    found = auto if same else probe(preset.backend, preset.device)
    about = f"preset {preset.name}"
    wants = f"{preset.backend} on {preset.device}" + (f" ({origin})" if origin else "")
    if "error" in found:
        told = f"{wants} can't run here: {found['error']}"
        return {**facts, "error": found["error"]}, [Finding(about=about, mark="missing", told=told, blocks=True)]
    facts["resolved"] = found["device"]
    needs = _memory_gb(preset, found["choices"])
    usable, free = _room(preset.backend, found["device"], found["device_name"], here)
    facts |= {"memory_gb": needs, "usable_gb": usable, "free_gb": free}
    told, mend = wants, ""
    mark: Mark = "ok"
    if needs is not None:
        told += f"; takes about {needs:.1f} GB"
        told += f" of {usable:.1f}" if usable is not None else ""
        if usable is not None and needs > estimate.MOST_MEMORY * usable:
            mark, mend = "warning", "a smaller preset, or --set device_batch_size=N with a smaller N"
        elif free is not None and needs > free:
            mark, mend = "warning", f"only {free:.1f} GB are free now: end what holds the rest"
    findings = [Finding(about=about, mark=mark, told=told, mend=mend)]
    best = max(here, key=lambda one: one.memory_gb, default=None)
    if best is not None and found["device"] == "cpu":
        known = devices.matching(best.name, best.memory_gb)
        better = known.key if known is not None else "auto"
        told = f"{best.name} is here, and this preset leaves it idle"
        findings.append(Finding(about=about, mark="warning", told=told, mend=f"--preset {better}"))
    return facts, findings


def _room(backend: str, device: str, name: str, here: Here) -> tuple[float | None, float | None]:
    """Memory in GB of a backend's device that a trial may take, and what is free of it now; None where not known."""
    kind, _, index = device.partition(":")
    if kind == "cpu":
        memory = psutil.virtual_memory()
        return memory.total / GB, memory.available / GB
    driven = [one for one in here if (backend, kind) in devices.DRIVERS[one.kind]]
    mine = [one for one in driven if one.name == name] or driven  # the framework's order may be another
    if not mine:
        return None, None
    one = mine[min(int(index or 0), len(mine) - 1)]
    return devices.like(one.kind, one.name, one.memory_gb, backend, kind).usable_gb, one.free_gb


def _memory_gb(preset: Preset, choices: Mapping[str, str]) -> float | None:
    """What a trial of the reference trainer is estimated to take; None for backends without an estimate."""
    if preset.backend not in cost.ACTIVATIONS:
        return None
    kernel, dtype, compiler = (choices.get(key, "").partition(" (")[0] for key in ("kernel", "dtype", "compile"))
    return cost.memory_gb(preset, kernel, dtype, compiled=compiler == "inductor") if dtype in cost.BYTES else None


def _data(preset: Preset, name: str) -> tuple[Facts, list[Finding]]:
    facts: Facts = {}
    findings = []
    corpora = dict.fromkeys([preset.corpus, *(one for one in NAMES if ":" not in one)])
    every = [presets.load(one) for one in presets.names()]
    for corpus in corpora:
        wanted = {preset.vocabulary, *(one.vocabulary for one in every)}
        whole: dict[int, Dataset] = {}
        error = ""
        for vocabulary in sorted(wanted):
            try:
                if (dataset := prepared(corpus, vocabulary)) is not None:
                    whole[vocabulary] = dataset
            except (UserError, OSError) as failure:
                error = str(failure)
                break
        mine = corpus == preset.corpus
        size = sum(map(_stored, whole.values()))
        facts[corpus] = {"vocabularies": list(whole), "bytes": size, "error": error or None}
        about = f"corpus {corpus}"
        command = f"autoresearch prepare --preset {name}" + ("" if mine else f" --corpus {corpus}")
        if error:
            findings.append(Finding(about=about, mark="missing", told=error, blocks=mine))
        elif whole and (not mine or preset.vocabulary in whole):
            told = f"prepared with {' and '.join(map(str, whole))} token ids, {_size(size)}"
            findings.append(Finding(about=about, mark="ok", told=told))
        else:
            online = "" if corpus.startswith("folder:") else ", online"
            told = f"not prepared with {preset.vocabulary} token ids; a first run does it{online}"
            lacks = _lacking(corpus)
            mend = f"{lacks}, then {command}" if lacks else command
            findings.append(Finding(about=about, mark="missing", told=told, mend=mend, blocks=mine and bool(lacks)))
    return facts, findings


def _lacking(corpus: str) -> str:
    """The command that adds what fetching the corpus needs; empty if nothing lacks."""
    there = all(importlib.util.find_spec(name) for name in ("huggingface_hub", "pyarrow"))
    return INSTALL if isinstance(find(corpus), HubCorpus) and not there else ""


def _stored(dataset: Dataset) -> int:
    """Bytes of a dataset's files, but for a tokenizer and manifests of some kilobytes."""
    held_out = sum(part.values.nbytes + part.offsets.nbytes for part in (dataset.val, dataset.test))
    return held_out + sum(values.nbytes for values in dataset.train.values) + dataset.train.starts.nbytes


def _disk() -> tuple[Facts, Facts, list[Finding]]:
    root = cache_root()
    sizes = {path.name: _size_of(path) for path in _entries(root) if path.is_dir()}
    total = sum(sizes.values())
    cache: Facts = {"folder": str(root), "bytes": total, "parts": sizes}
    largest = sorted((size, name) for name, size in sizes.items() if size)[::-1][:4]
    told = f"{root}: {_size(total)}" if root.exists() else f"{root}: not there yet"
    told += f" ({', '.join(f'{name} {_size(size)}' for size, name in largest)})" if largest else ""
    writable = os.access(_existing(root), os.W_OK)
    mend = "" if writable else f"{root} can't be written to: set AUTORESEARCH_CACHE to a folder that can"
    findings = [Finding(about="cache", mark="ok" if writable else "missing", told=told, mend=mend, blocks=not writable)]
    facts: Facts = {}
    for place, path in (("cache", root), ("here", Path.cwd())):
        free = shutil.disk_usage(_existing(path)).free / GB
        facts[place] = {"folder": str(path), "free_gb": free}
        mark: Mark = "ok" if free >= LOW_DISK_GB else "warning" if free >= NO_DISK_GB else "missing"
        told = f"{free:.1f} GB free for {'the cache' if place == 'cache' else 'this folder'}"
        mend = "" if mark == "ok" else f"free some: under {LOW_DISK_GB:g} GB a night's campaign may fill the disk"
        findings.append(Finding(about="disk", mark=mark, told=told, mend=mend, blocks=mark == "missing"))
    return cache, facts, findings


def _entries(folder: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return sorted(folder.iterdir())
    return []


def _size_of(folder: Path) -> int:
    """Bytes of all files below; what vanishes meanwhile counts nothing."""
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


def _sandbox() -> tuple[Facts, list[Finding]]:
    """The tier that trials get, whether it applies, and what it can't keep a trial from."""
    found, result = tier.available(), check()
    facts = {"tier": found.name, "unenforced": list(found.unenforced), "why": found.why, **dataclasses.asdict(result)}
    if not found.enforced:
        told = f"none: trials run with your rights ({found.why})"
        mend = "run only agents that you would let run a script"
        return facts, [Finding(about="sandbox", mark="warning", told=told, mend=mend)]
    if result.error:
        mend = "--no-sandbox runs trials with your rights, and every record says so"
        return facts, [Finding(about="sandbox", mark="missing", told=result.error, mend=mend, blocks=True)]
    told = f"{found.name}; it can't keep a trial from: {', '.join(found.unenforced)}"
    findings = [Finding(about="sandbox", mark="ok", told=told)]
    if not result.shared_memory:
        told = "no private /dev/shm (it needs root or user namespaces): a trainer's process pools and locks fail"
        findings.append(Finding(about="sandbox", mark="warning", told=told))
    return facts, findings


def load_here(here: Here) -> tuple[Facts, list[Finding]]:
    """What else runs: the last minute's load, cores in use over half a second, and who uses them."""
    cores = psutil.cpu_count() or 1
    minute = psutil.getloadavg()[0]
    psutil.cpu_percent()
    others = [one for one in psutil.process_iter() if one.pid != os.getpid()]
    _used(others)
    time.sleep(SAMPLE_SECONDS)
    used = psutil.cpu_percent() / 100 * cores
    running = sorted(_used(others), key=lambda one: -one["cores"])[:3]
    on_accelerators = [_name(pid) for pid in accelerators.users()]
    facts = {
        "load_average": minute,
        "cores": cores,
        "cores_in_use": used,
        "processes": running,
        "on_accelerators": on_accelerators,
    }
    busy = used > BUSY_SHARE * cores or minute > LOAD_SHARE * cores
    told = f"{used:.1f} of {cores} cores in use, load average {minute:.1f}"
    if running:
        told += ": " + ", ".join(f"{one['name']} ({one['pid']}) {one['cores']:.1f}" for one in running)
    mend = "end what runs beside: it takes steps from every trial, and unequally" if busy else ""
    findings = [Finding(about="load", mark="warning" if busy else "ok", told=told, mend=mend)]
    for one in here:
        if one.busy is not None and one.busy > BUSY_ACCELERATOR:
            told = f"{one.name} is {one.busy:.0%} busy"
            told += f", with {', '.join(on_accelerators)}" if on_accelerators else ""
            findings.append(Finding(about="load", mark="warning", told=told, mend="end what uses it, or wait"))
    return facts, findings


def _used(processes: Iterable[psutil.Process]) -> list[Facts]:
    """Those that took much of a core since they were last asked. Names only: a command line may hold a secret."""
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
