"""Folders for temporary files: whose they are, and when they count as abandoned."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.records import UserError
from core.system import scratch

MAKES = "import sys; from core.system import scratch; print(scratch.make(), flush=True); sys.stdin.read()"


def made_by_another(scratches: Path) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", MAKES],
        env={**os.environ, "TMPDIR": str(scratches), "TEMP": str(scratches)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_a_folder_is_abandoned_when_its_process_has_gone(scratches: Path) -> None:
    process, folder = made_by_another(scratches)
    with process, scratch.folder() as own:
        assert {folder.parent, own.parent} == {scratches}
        assert scratch.abandoned() == []
        process.kill()
        process.wait()
        assert scratch.abandoned() == [folder]
    assert not own.exists()
    scratch.remove(folder)
    assert list(scratches.iterdir()) == []


def renamed(folder: Path, place: int, value: str) -> Path:
    parts = folder.name.split("-")
    parts[place] = value
    return folder.rename(folder.with_name("-".join(parts)))


def test_a_later_process_of_the_same_id_is_another_one(scratches: Path) -> None:
    folder = renamed(scratch.make(), 2, "1")
    assert scratch.abandoned() == [folder]


def test_what_is_another_machines_or_not_ours_is_left_alone(scratches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    renamed(renamed(scratch.make(), 2, "1"), 3, "0" * 6)
    for name in ("autoresearch-abcd1234", "autoresearch-1-1-zz-abcdefgh", "other"):
        (scratches / name).mkdir()
    file = renamed(scratch.make(), 2, "1")
    file.rmdir()
    file.touch()
    (scratches / renamed(scratch.make(), 2, "2").name).rename(scratches / "real")
    file.with_name(file.name.replace("-1-", "-2-")).symlink_to(scratches / "real")
    assert scratch.abandoned() == []
    if sys.platform != "win32":
        other = renamed(scratch.make(), 2, "1")
        assert scratch.abandoned() == [other]
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        assert scratch.abandoned() == []


@pytest.mark.skipif(sys.platform == "win32", reason="rights of POSIX")
def test_all_is_removed_also_what_took_its_own_rights_away(scratches: Path) -> None:
    with scratch.folder() as folder:
        (folder / "a" / "b").mkdir(parents=True)
        (folder / "a" / "b" / "file").touch()
        (folder / "a" / "link").symlink_to("/")
        (folder / "a" / "b").chmod(0)
        (folder / "a").chmod(0)
    assert list(scratches.iterdir()) == []


def test_a_folder_for_temporary_files_that_is_gone_or_no_folder_is_said(scratches: Path) -> None:
    scratches.rmdir()
    with pytest.raises(UserError, match=rf"{scratches} is gone: make it again, or set TMPDIR to another folder"):
        scratch.make()
    assert scratch.abandoned() == []
    scratches.touch()
    with pytest.raises(UserError, match="set TMPDIR"):
        scratch.make()


def test_no_folder_for_temporary_files_at_all_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr("tempfile.gettempdir", nowhere)
    with pytest.raises(UserError, match="No usable temporary directory found.*set TMPDIR"):
        scratch.make()
