"""What a shell completes, as bash asks for it: words in COMP_WORDS, the answer a line each."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import typer.main
from campaigns import ScriptedAgent, a_campaign, trainer

from core.cli.app import app

COMMAND = typer.main.get_command(app)


@pytest.fixture(scope="module")
def evening(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the campaign `night`, with two experiments, its copy `further/7`, a preset and another file."""
    root = tmp_path_factory.mktemp("evening")
    with a_campaign(root / "night") as campaign:
        campaign.run(ScriptedAgent([trainer(1.5)]), experiments=1)
    shutil.copytree(root / "night", root / "further" / "7")
    (root / "mine.toml").write_text('base = "cpu"\n', encoding="utf-8")
    (root / "notes.txt").write_text("none\n", encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("run night --preset rtx", ["rtx5090", "rtx4090", "rtx3090", "rtx4070", "rtx3060"]),
        ("run night -p au", ["auto"]),
        ("train --preset mi", ["mi300x", "mine.toml"]),
        ("presets m4", ["m4", "m4-pro", "m4-max"]),
        ("doctor --preset smo", ["smoke"]),
        ("compare --presets cpu,num", ["cpu,numpy"]),
        ("compare --backends torch,ja", ["torch,jax"]),
        ("run night --agent h", ["hybrid"]),
        ("run night --agent re", ["replay"]),
        ("run night --corpus ti", ["tinystories"]),
        ("run night --device cu", ["cuda"]),
        ("run night --set total", ["total_batch_size="]),
        ("run night --provider o", ["openai"]),
        ("run night --effort x", ["xhigh"]),
        ("bench st", ["step"]),
        ("status n", ["night"]),
        ("log --dir ni", ["night"]),
        ("audit further/", ["further/7"]),
        ("run again --replay ", ["further/7", "night"]),
        ("show night ", ["0", "1"]),
        ("show night 1 d", ["diff"]),
        ("show --dir night 1 t", ["train.py"]),
        ("transcript n", ["night"]),
        ("status nothing", []),
    ],
)
def test_values_complete(
    line: str, expected: list[str], evening: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(evening)
    words = f"autoresearch {line}"
    monkeypatch.setenv("_AUTORESEARCH_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
    with pytest.raises(SystemExit):
        COMMAND(prog_name="autoresearch")
    assert capsys.readouterr().out.split() == expected


def test_within_a_campaign_its_experiments_complete(
    evening: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(evening / "night")
    monkeypatch.setattr(os, "environ", {**os.environ, "_AUTORESEARCH_COMPLETE": "complete_bash"})
    for words, expected in (("show ", ["0", "1"]), ("show 1 h", ["hypothesis"]), ("export model -e ", ["0", "1"])):
        os.environ["COMP_WORDS"] = f"autoresearch {words}"
        os.environ["COMP_CWORD"] = str(len(words.split(" ")))
        with pytest.raises(SystemExit):
            COMMAND(prog_name="autoresearch")
        assert capsys.readouterr().out.split() == expected
