"""Bytecode of what a trial imports: found missing, made once where it can be, named where it can't."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import backends
from core.measure import doctor
from core.trial import bytecode


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A framework that is installed without bytecode, with a file that is no Python, and what it requires."""
    folder = tmp_path / "it's installed"
    for name in ("framed", "required"):
        package = folder / name / "inner"
        package.mkdir(parents=True)
        for number in range(12):
            (package / f"module{number}.py").write_text("VALUE = 1\n")
        (folder / name / "__init__.py").write_text("")
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir()
        needs = "Requires-Dist: Required >=1 ; python_version > '3'\nRequires-Dist: absent; extra == 'all'\n"
        (info / "METADATA").write_text(f"Name: {name}\nVersion: 1.0\n{needs if name == 'framed' else ''}")
        listed = [path.relative_to(folder).as_posix() for path in (folder / name).rglob("*.py")]
        (info / "RECORD").write_text("".join(f"{one},,\n" for one in listed))
    (folder / "framed" / "template.py").write_text("{{ this is a template }} of\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(backends.get("numpy"), "packages", ("framed",))
    monkeypatch.setattr(bytecode, "_own", list)
    monkeypatch.setattr(bytecode, "_ALWAYS", ())
    return folder


def test_it_is_made_once_and_seen_by_the_interpreter(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(library / "elsewhere"))  # no trial looks there
    told: list[tuple[int, int]] = []
    bytecode.compile_missing("numpy", lambda stage, done, total: told.append((done, total)))
    assert (told[0], told[-1]) == ((0, 27), (27, 27))
    assert len(list(library.rglob("__pycache__/*.pyc"))) == 26
    assert bytecode.uncompiled("numpy") is None
    code = "import framed.inner.module3 as m; print(m.__cached__, m.__spec__.loader.get_code(m.__name__) is not None)"
    environment = {"PYTHONPATH": str(library), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-v", "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert f"matches {library}/framed/inner/module3.py" in done.stderr.replace(os.sep, "/")


def test_a_library_whose_main_part_is_compiled_is_not_searched(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bytecode.compile_missing("numpy", lambda stage, done, total: None)
    shutil.rmtree(library / "required" / "inner" / "__pycache__")
    assert bytecode.uncompiled("numpy") is None


def test_the_doctor_names_the_command_that_mends_it(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = doctor.Report(preset="cpu")
    doctor._examine_bytecode(report, "numpy")
    assert "27 of 27 files of its libraries have no bytecode" in report.diagnoses[0].message
    assert "autoresearch prepare" in report.diagnoses[0].fix
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    doctor._examine_bytecode(report, "numpy")
    command = report.diagnoses[1].fix.removeprefix("as who owns them: ")
    bytecode.compile_missing("numpy", lambda stage, done, total: pytest.fail("it can't be written"))
    subprocess.run(shlex.split(command), check=False, capture_output=True)
    assert bytecode.uncompiled("numpy") is None
    assert report.facts["bytecode"] == {"numpy": {"missing": 27}}


@pytest.mark.parametrize("backend", backends.names())
def test_a_backends_packages_are_its_distributions(backend: str) -> None:
    if backends.get(backend).missing():
        pytest.skip(f"{backend} is not installed")
    names = bytecode._with_requirements(backends.get(backend).packages)
    assert {"numpy", "safetensors", *backends.get(backend).packages} <= set(names)
    assert all(bytecode._installed(name) for name in backends.get(backend).packages)
