"""What this interpreter finds, a trial's finds, although its home is another."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest
from support import trainer_text
from trial_runs import SUPERVISOR

import core
from core.records import Trial
from core.sandbox import paths, tier
from core.sandbox.environment import scrubbed

IMPORTS = trainer_text(before="import clustered; print(clustered.WORD)")


def installed_into(folder: Path) -> Path:
    """A folder as `pip install --target` leaves it."""
    (folder / "clustered-1.0.dist-info").mkdir(parents=True)
    (folder / "clustered.py").write_text("WORD = 'found'")
    return folder


@pytest.mark.parametrize("place", ["apps/torch/2.9/lib/python3/site-packages", "target"])
def test_packages_of_pythonpath_are_found(
    place: str, tmp_path: Path, run: Callable[..., Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = installed_into(tmp_path / place)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", str(folder), str(tmp_path / "missing")]))
    assert run(IMPORTS).verdict == "scored"
    assert paths.unseen_python_path() == ()


def test_a_project_in_pythonpath_is_not_readable_and_said(
    tmp_path: Path, run: Callable[..., Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "clustered.py").write_text("WORD = 'secret'")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "project"))
    assert "clustered" in run(IMPORTS).reason
    assert paths.unseen_python_path() == (tmp_path / "project",)
    command = [sys.executable, "-m", "core.cli.app", "train", "--preset", "nosuch"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert f"PYTHONPATH names {tmp_path / 'project'}, which trials can't read" in done.stderr


def test_a_home_is_never_a_folder_of_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(installed_into(tmp_path)))
    assert paths.python_path() == ()
    assert tmp_path not in paths.python()


def test_unconfined_all_of_pythonpath_is_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tier, "_off", "--no-sandbox")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert scrubbed(tmp_path, {})["PYTHONPATH"] == str(tmp_path)
    assert paths.unseen_python_path() == ()


@pytest.mark.skipif(sys.platform == "win32", reason="~/.local")
def test_installed_with_user_a_trial_finds_its_packages(tmp_path: Path, cache: Path, corpus_folder: Path) -> None:
    base = Path(getattr(sys, "_base_executable", sys.executable))
    home = tmp_path / "home"
    named = subprocess.run(
        [base, "-m", "site", "--user-site"],
        env={**os.environ, "HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    user_site = Path(named.stdout.strip())
    user_site.mkdir(parents=True)
    places = [sysconfig.get_path("purelib"), str(Path(core.__path__[0]).parent)]
    (user_site / "all.pth").write_text("\n".join(places))
    (user_site / "clustered.py").write_text("WORD = 'found'")
    (tmp_path / "train.py").write_text(IMPORTS)
    done = subprocess.run(
        [base, "-c", SUPERVISOR, tmp_path / "train.py", tmp_path / "into", corpus_folder],
        env={**os.environ, "HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split()[-1:] == ["scored"], (done.stdout, done.stderr)


def test_a_folder_that_trials_do_not_get_is_not_theirs_to_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not tier.here().enforced:
        pytest.skip("nothing is enforced here")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert tmp_path in paths.unseen_python_path()
    assert tmp_path not in paths.package_folders()
