"""The compiled bytecode of the libraries that a trial imports. A trial can't write it, so it is made once before.

pip and conda compile what they install; uv doesn't unless it is asked to. Without bytecode each process of a trial
parses its libraries again, which takes longer than importing them.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import safetensors

import backends
import core
import presets

OnStage = Callable[[str, int, int], None]  # what is done, how much of it, of how much

_LACKING = 0.1  # share of a package's files: templates and tests among them may be no valid Python
_ALWAYS = (np.__name__, safetensors.__name__)  # what a trial's own side imports
_AT_ONCE = 100  # files that one process compiles


@dataclass(frozen=True)
class Uncompiled:
    """The files of some packages that have no bytecode, and how many files there are in all."""

    files: tuple[Path, ...]
    of: int

    @property
    def writable(self) -> bool:
        """Whether this user may write the bytecode beside them."""
        return all(os.access(folder, os.W_OK) for folder in {path.parent for path in self.files})

    @property
    def command(self) -> str:
        """What compiles them."""
        folders = {next(one for one in path.parents if not (one / "__init__.py").exists()) for path in self.files}
        return f"{sys.executable} -m compileall -q {shlex.join(sorted(map(str, folders)))}"


def uncompiled(backend: str) -> Uncompiled | None:
    """What lacks bytecode of what a trial of this backend imports; None if at most a few files do."""
    own = _own()
    frameworks = backends.get(backend).packages
    roots = [*own, *(root for name in frameworks for root in _roots_of(name))]
    if _lacking(roots) is None:
        return None
    libraries = (root for name in _with_requirements(frameworks) for root in _installed(name))
    return _lacking([*own, *dict.fromkeys(libraries)])


def compile_missing(backend: str, on_stage: OnStage) -> None:
    """Compiles what `uncompiled` finds, if it can be written. May be interrupted: what is compiled stays."""
    found = uncompiled(backend)
    if found is None or not found.writable:
        return
    stage, done = f"compiling Python's bytecode of {backend}, once", 0
    parts = [found.files[first : first + _AT_ONCE] for first in range(0, len(found.files), _AT_ONCE)]
    on_stage(stage, 0, len(found.files))
    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        try:
            for part, _ in zip(parts, threads.map(_compile, parts), strict=True):
                done += len(part)
                on_stage(stage, done, len(found.files))
        finally:
            threads.shutdown(wait=True, cancel_futures=True)


def _own() -> list[Path]:
    return [Path(package.__path__[0]) for package in (core, backends, presets)]


def _compile(files: Iterable[Path]) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPYCACHEPREFIX"}
    subprocess.run(
        [sys.executable, "-I", "-m", "compileall", "-qq", "-i", "-"],
        input="\n".join(map(str, files)),
        env=environment,
        encoding="utf-8",
        capture_output=True,
        check=False,
    )


def _lacking(roots: Iterable[Path]) -> Uncompiled | None:
    """The files without bytecode in those roots where more than a few lack it; None if that is nowhere."""
    files, of = [], 0
    for root in roots:
        sources = [root] if root.suffix == ".py" else sorted(root.rglob("*.py"))
        lacking = [path for path in sources if not _bytecode(path).exists()]
        if len(lacking) > _LACKING * len(sources):
            files += lacking
            of += len(sources)
    return Uncompiled(tuple(files), of) if files else None


def _bytecode(path: Path) -> Path:
    """Where a trial looks for it: not where PYTHONPYCACHEPREFIX may say in this process."""
    return path.parent / "__pycache__" / f"{path.stem}.{sys.implementation.cache_tag}.pyc"


def _roots_of(package: str) -> list[Path]:
    spec = importlib.util.find_spec(package)
    return [Path(one) for one in spec.submodule_search_locations or ()] if spec is not None else []


def _installed(distribution: str) -> list[Path]:
    """The top folders and modules that a distribution installed beside each other."""
    found = metadata.distribution(distribution)
    tops = {file.parts[0] for file in found.files or () if file.suffix == ".py" and file.parts[0] != ".."}
    return [path for top in sorted(tops) if (path := Path(str(found.locate_file(top)))).exists()]


def _with_requirements(distributions: Iterable[str]) -> list[str]:
    """The distributions that are installed of these and of all that they require, without extras."""
    found: list[str] = []
    ahead = [*_ALWAYS, *distributions]
    while ahead:
        name = re.sub(r"[-_.]+", "-", ahead.pop()).lower()
        if name in found:
            continue
        try:
            requires = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        found.append(name)
        for one in requires:
            requirement, _, marker = one.partition(";")
            if "extra" not in marker and (word := re.match(r"[\w.-]+", requirement)):
                ahead.append(word[0])
    return found
