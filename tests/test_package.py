"""`import autoresearch` and `python -m autoresearch`: what they hand on, what they load, and what shadows them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import autoresearch

ROOT = Path(__file__).parents[1]
COMMAND = "from autoresearch import main; main()"  # what the console script does


def python(*arguments: str, cwd: Path, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if path is not None:
        environment["PYTHONPATH"] = path
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


def test_the_command_goes_through_the_module() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["scripts"] == {"autoresearch": "autoresearch:main"}


def test_importing_it_loads_nothing_of_ours_and_every_name_is_there(tmp_path: Path) -> None:
    code = (
        "import sys, json, autoresearch\n"
        "before = sorted({name.partition('.')[0] for name in sys.modules})\n"
        "found = {name: getattr(autoresearch, name).__name__ for name in autoresearch.__all__}\n"
        "print(json.dumps([before, found, dir(autoresearch)]))"
    )
    done = python("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    before, found, listed = json.loads(done.stdout)
    assert not {*before} & {"core", "backends", "presets", "numpy", "pathlib", "typer"}
    assert found == {
        "Campaign": "Campaign",
        "UserError": "UserError",
        "agents": "core.agents.registry",
        "compare": "compare",
        "presets": "presets",
        "records": "core.records",
        "train": "train",
    }
    assert {*found} <= {*listed}
    with pytest.raises(AttributeError, match="has no attribute 'Campain'; it has Campaign, "):
        _ = autoresearch.Campain  # type: ignore[attr-defined]


def test_python_m_autoresearch_is_the_command(tmp_path: Path) -> None:
    done = python("-m", "autoresearch", "--version", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "") and re.fullmatch(r"\d+\.\d+\.\d+\n", done.stdout)
    wrong = python("-m", "autoresearch", "log", "--last", "x", cwd=tmp_path)
    assert wrong.returncode == 2 and wrong.stderr.startswith("Usage: autoresearch log ")


def shadowing(folder: Path, name: str) -> Path:
    """A repository with a package of that name, as many have a `core/`."""
    package = folder / "repository" / name
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("RAN = True\n", encoding="utf-8")
    return package


@pytest.mark.parametrize("name", autoresearch.PACKAGES)
def test_a_package_that_shadows_ours_is_named_in_one_sentence(tmp_path: Path, name: str) -> None:
    package = shadowing(tmp_path, name)
    done = python("-c", COMMAND, "status", cwd=package.parent, path=".")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"autoresearch: Python finds the package {name} at {package} instead of autoresearch's own at {ROOT / name}: "
        "PYTHONPATH names its folder; run the command as env -u PYTHONPATH autoresearch\n"
    )


def test_a_module_in_the_current_folder_shadows_only_python_m(tmp_path: Path) -> None:
    (tmp_path / "core.py").write_text("", encoding="utf-8")
    done = python("-m", "autoresearch", "--version", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"finds the package core at {tmp_path / 'core.py'}" in done.stderr
    assert done.stderr.endswith("change to another folder, or run python -P -m autoresearch\n")
    assert python("-P", "-m", "autoresearch", "--version", cwd=tmp_path).returncode == 0
    shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)


def test_a_notebook_with_a_core_of_its_own_is_told_so(tmp_path: Path) -> None:
    package = shadowing(tmp_path, "core")
    code = (
        "import core\n"
        "assert core.RAN\n"
        "import autoresearch\n"
        "try:\n"
        "    from autoresearch import Campaign\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    done = python("-c", code, cwd=package.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1 and str(package) in done.stdout
    assert "start a new Python and import autoresearch first" in done.stdout


def test_a_folder_without_code_shadows_nothing(tmp_path: Path) -> None:
    (tmp_path / "core").mkdir()
    (tmp_path / "autoresearch").mkdir()  # a checkout, seen from the folder above
    done = python("-m", "autoresearch", "--version", cwd=tmp_path, path=".")
    assert done.returncode == 0, done.stderr


@pytest.mark.long
def test_the_worked_example_runs_as_it_stands(tmp_path: Path, corpus_folder: Path) -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    shutil.copytree(corpus_folder, tmp_path / "texts")
    done = python("-c", example, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert {line.split()[0] for line in lines[:2]} == {"usual", "smooth"}
    assert [line.split()[0] for line in lines[2:4]] == ["0", "1"]
    assert re.fullmatch(r"[01] of 1 kept: \d\.\d{4} -> \d\.\d{4}", lines[4])
    assert lines[-1].startswith("scored ") and lines[-1].endswith("counts (nothing to choose)")
    assert (tmp_path / "night" / "train.py").is_file()
