"""The git program: missing, broken, foreign and old are four things, each told in a sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.records import UserError
from core.store import git_program
from core.store.repository import GitFailed, Repo

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="stands in for git with a shell script")


def test_the_git_that_is_here_is_new_enough() -> None:
    found = git_program.find()
    assert Path(found.path).exists()
    assert found.version[0].isdigit()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (None, "a campaign needs git, and there is no 'git' on the PATH: install it, then run the same command again"),
        (
            "#!/bin/sh\necho 'xcrun: error: invalid active developer path \033[31m(/Library)' >&2; exit 1\n",
            "{git} is there, but it fails: xcrun: error: invalid active developer path (/Library) (`git version`): ",
        ),
        ("#!/bin/sh\nexit 3\n", "{git} is there, but it fails: exit status 3 (`git version`): mend it, then run the "),
        (
            "#!/nowhere\n",
            "{git} is there, but can't be started: No such file or directory: mend it, then run the same ",
        ),
        ("#!/bin/sh\necho tig 3\n", "expected {git} to be git, but `git version` says 'tig 3': mend the PATH, then "),
        ("#!/bin/sh\necho git version 2.28.0.rc1\n", "{git} is git 2.28.0.rc1, and a campaign needs 2.29 or newer: "),
        ("#!/bin/sh\necho 'git version 2.29.2 (Apple Git-130)'\n", ""),
        ("#!/bin/sh\necho git version 10.0\n", ""),
    ],
)
def test_missing_broken_foreign_and_old(
    script: str | None, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git = tmp_path / "git"
    if script is not None:
        git.write_text(script)
        git.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("GIT_PYTHON_GIT_EXECUTABLE", raising=False)
    if not reason:
        assert git_program.find().path == str(git)
        return
    with pytest.raises(UserError) as raised:
        git_program.find()
    assert str(raised.value).startswith(reason.format(git=git))


def test_a_command_without_git_ends_in_that_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from core.cli.app import main; main()", "init", "c", "--preset", "numpy"]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("autoresearch: a campaign needs git, and there is no 'git' on the ")


def test_a_repository_that_git_cannot_read_is_told_in_gits_own_words(tmp_path: Path) -> None:
    Repo.create(tmp_path, "autoresearch/t", {"train.py": "A = 1\n"}, "Campaign t").close()
    (tmp_path / ".git" / "config").write_text("[core\n")
    repo = Repo(tmp_path, "autoresearch/t")
    with pytest.raises(GitFailed, match=r"git rev-parse in .*: fatal: bad config line 1 in file .*config"):
        repo.head()
    repo.close()
