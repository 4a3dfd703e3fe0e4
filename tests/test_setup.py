"""`make setup` says how to have the command, and the commands that the pages name are commands that there are."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import typer.main

from core.cli.app import app

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "program.md", "docs/agents.md", "docs/gpu.md", "docs/python.md")


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """scripts/setup.py for an environment of its own, in which the command says that it is there."""
    spec = importlib.util.spec_from_file_location("setup_script", ROOT / "scripts" / "setup.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path / "a folder" / ".venv"
    venv.create(folder, with_pip=False, symlinks=True)
    command = folder / "bin" / "autoresearch"
    command.write_text("#!/bin/sh\necho it is there\n", encoding="utf-8")
    command.chmod(0o755)
    monkeypatch.setattr(module, "BIN", folder / "bin")
    monkeypatch.setattr(module, "OWN_FOLDERS", (tmp_path / "own",))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return module


def typed(line: str) -> str:
    """What the line says is to be typed."""
    return line.partition(":    ")[2]


def run(commands: str) -> str:
    done = subprocess.run(["bash", "-c", commands], capture_output=True, text=True, env={"PATH": os.environ["PATH"]})
    return done.stdout.strip()


@pytest.mark.skipif(os.name == "nt", reason="the commands are for a POSIX shell")
def test_what_setup_says_at_its_end_works_as_typed(
    setup: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, everywhere, then = setup.how_to_have_it()
    assert run("autoresearch --help") == ""
    assert run(f"{typed(here)} && autoresearch --help") == "it is there"
    assert " tool install --constraints constraints.txt " in everywhere
    assert then == "then: autoresearch --help"
    (tmp_path / "own").mkdir()
    monkeypatch.setenv("PATH", f"/usr/bin:/bin:{tmp_path / 'own'}")
    _, everywhere, _ = setup.how_to_have_it()
    assert run(f"{typed(everywhere)} && autoresearch --help") == "it is there"
    assert setup.how_to_have_it() == ["try: autoresearch --help"]


@pytest.mark.parametrize(
    ("shell", "script"),
    [("/bin/bash", "activate"), ("/usr/bin/fish", "activate.fish"), ("/bin/tcsh", "activate.csh"), ("", "activate")],
)
@pytest.mark.skipif(os.name == "nt", reason="these are POSIX shells")
def test_each_shell_has_its_script(shell: str, script: str, setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", shell)
    assert setup.how_to_have_it()[0].rstrip("'").endswith(f"bin/{script}")


@pytest.mark.skipif(sys.platform == "win32", reason="it has no make")
def test_only_make_setup_says_it_when_there_is_nothing_to_install() -> None:
    for target, quiet in (("setup", False), ("test", True), ("demo", True)):
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True)
        assert ("scripts/setup.py --quiet" in done.stdout) == quiet, target


def commands(page: str) -> Iterator[str]:
    """Every command line of autoresearch in a page, without its comment."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for line in re.findall(r"^ {4}(?:\S*/)?autoresearch (.*)$", text, flags=re.MULTILINE):
        yield re.split(r" {2,}#? ?| # ", line)[0]
    yield from re.findall(r"`autoresearch ([^`]+)`", text)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_commands_and_options_that_there_are(page: str) -> None:
    whole = typer.main.get_command(app)
    known = {**whole.commands, **{option: whole for one in whole.params for option in one.opts}}  # type: ignore[attr-defined]
    found = list(commands(page))
    assert found or page == "docs/python.md"
    for line in found:
        name, *words = line.split()
        assert name in known, line
        options = {option for parameter in known[name].params for option in parameter.opts} | {"--help"}
        given = {word.partition("=")[0] for word in words if re.fullmatch(r"--?[a-z][\w-]*(=.*)?", word)}
        quoted = " ".join(re.findall(r'"[^"]*"', line)).split()  # another command's, as in --command "claude -p"
        assert given - {word.strip('"') for word in quoted} <= options, line
