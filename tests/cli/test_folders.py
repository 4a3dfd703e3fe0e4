"""Which campaign a command is about: DIR as its first word, --dir, the folder it runs in, or what it names below."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from campaigns import ScriptedAgent, a_campaign, trainer
from command import call

from core.cli.words import PARTS, split_words
from core.records import UserError


@pytest.fixture(scope="module")
def evenings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two campaigns below: `night` has a baseline and an experiment, and so has its copy `7`."""
    root = tmp_path_factory.mktemp("evenings")
    with a_campaign(root / "night") as campaign:
        campaign.run(ScriptedAgent([trainer(1.5)]), experiments=1)
    shutil.copytree(root / "night", root / "7")
    return root


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("3", (None, 3, "")),
        ("night 3", (Path("night"), 3, "")),
        ("3 train.py", (None, 3, "train.py")),
        ("night 3 train.py", (Path("night"), 3, "train.py")),
        ("3 3", (Path("3"), 3, "")),
        ("../a/night 0 diff", (Path("../a/night"), 0, "diff")),
        ("night", (Path("night"), None, "")),
        ("", (None, None, "")),
    ],
)
def test_words_are_folder_number_and_part(words: str, expected: tuple[Path | None, int | None, str]) -> None:
    assert split_words(words.split(), PARTS) == expected


@pytest.mark.parametrize(
    ("words", "parts", "said"),
    [
        ("night diff", PARTS, "expected [DIR] N [PART], as in `night 3 diff`, got 'night diff'"),
        ("3 dif", PARTS, "there is no part 'dif': did you mean diff?"),
        ("night 3 diff more", PARTS, "expected"),
        ("night 3 diff", (), r"expected [DIR] [N], as in `night 3`"),
    ],
)
def test_words_that_mean_nothing_are_refused(words: str, parts: Sequence[str], said: str) -> None:
    with pytest.raises(UserError) as refused:
        split_words(words.split(), parts)
    assert said in str(refused.value)


def test_a_folder_is_a_word_or_an_option_of_each_reading_command(
    evenings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(evenings)
    for folder in ("night", "7"):
        where = str(evenings / folder)
        assert where in call("status", folder).out
        assert call("status", folder).out == call("status", "--dir", folder).out
        assert len(call("log", folder).out.splitlines()) == 3
        assert "experiment 1: " in call("show", folder, 1).out
        assert call("show", folder, 1, "train.py").out == call("show", "--dir", folder, 1, "train.py").out
        assert "all of it holds" in call("audit", folder, "--quick").out
    assert f"worked on {evenings / 'night'}" in call("transcript", "night", code=2).err
    monkeypatch.chdir(evenings / "night")
    assert call("show", 1, "train.py").out == call("show", "--dir", "../7", 1, "train.py").out
    assert call("status", ".", "--dir", evenings / "night").out == call("status").out


def test_two_folders_are_one_too_many_and_an_experiment_has_a_number(
    evenings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(evenings)
    assert "one campaign at a time: night and 7 were named" in call("status", "night", "--dir", "7", code=2).err
    assert "as in autoresearch show night 3; 2 are recorded" in call("show", "night", code=2).err
    assert "autoresearch export model" in call("export", "--dir", "night", code=2).err


@pytest.mark.parametrize(
    ("arguments", "example"),
    [
        (["status"], "autoresearch status 7"),
        (["log", "--last", "3"], "autoresearch log 7 --last 3"),
        (["show", "1", "diff"], "autoresearch show 7 1 diff"),
        (["confirm"], "autoresearch confirm 7"),
        (["audit", "--quick"], "autoresearch audit 7 --quick"),
        (["try", "-m", "wider heads"], "autoresearch try 7 -m 'wider heads'"),
        (["run"], "autoresearch run 7"),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="the expected commands are quoted for a POSIX shell")
def test_above_campaigns_they_are_named(
    evenings: Path, arguments: list[str], example: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(evenings)
    message = call(*arguments, code=2).err
    assert "there are some below: 7, night. Name one: " in message
    assert message.rstrip().endswith(example)
    monkeypatch.chdir(evenings / "night")
    assert f"{evenings} holds no campaign, but there are some below" in call("status", evenings, code=2).err


@pytest.mark.skipif(os.name == "nt", reason="the script is for a POSIX shell")
def test_where_no_path_leads_to_the_command_it_is_named_as_it_was_started(evenings: Path) -> None:
    command = evenings / "bin" / "autoresearch"
    command.parent.mkdir()
    command.write_text(f"#!{sys.executable}\nfrom core.cli.app import main\nmain()\n", encoding="utf-8")
    command.chmod(0o755)
    source = str(Path(__file__).parents[2])
    done = subprocess.run(
        ["bin/autoresearch", "status"], cwd=evenings, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": source},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.rstrip().endswith("Name one: bin/autoresearch status 7")
