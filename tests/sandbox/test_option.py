"""`--no-sandbox`: loud on the terminal and in the record, and off again for the next command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from core.sandbox import tier


def train(corpus: Path, *options: str) -> subprocess.CompletedProcess[str]:
    arguments = ["train", "--preset", "numpy", "--steps", "2", "--corpus", f"folder:{corpus}", "--json", *options]
    command = [sys.executable, "-c", "from core.cli.app import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("off", [True, False])
def test_the_terminal_and_the_record_say_whether_there_is_one(cache: Path, corpus_folder: Path, off: bool) -> None:
    done = train(corpus_folder, *(["--no-sandbox"] if off else []))
    record = json.loads(done.stdout.splitlines()[-1])
    assert record["verdict"] == "scored", done.stderr
    expected = "none" if off else tier.available().name
    assert record["sandbox"] == expected
    assert record["unenforced"]
    assert ("WARNING: no sandbox" in done.stderr) == (expected == "none")
    assert ("(--no-sandbox): trainers run with your rights" in done.stderr) == off
