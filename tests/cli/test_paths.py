"""Paths that can't be: one sentence with the path and status 2, before any work. Files follow the umask."""

from __future__ import annotations

import dataclasses
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from campaigns import PRESET, ScriptedAgent, ScriptedEngine, trainer
from command import Answer, call
from rights import as_nobody, make_read_only, small_disk
from synthetic import synthetic_documents

from core.agents.command.command_line import parse
from core.agents.command.environment import command_environment
from core.campaign.campaign import Campaign
from core.cli import completion
from core.records import UserError
from core.sandbox.paths import copies_of
from core.system.files import homes

NUMPY = ("--preset", "numpy", "--budget", 1)


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory, corpus_folder: Path) -> Path:
    """A campaign with a kept experiment, not to be changed."""
    root = tmp_path_factory.mktemp("campaigns") / "night"
    preset = dataclasses.replace(PRESET, corpus=f"folder:{corpus_folder}")
    with Campaign.create(root, preset, engine=ScriptedEngine(), trainer=trainer(2.0)) as campaign:
        campaign.run(ScriptedAgent([trainer(1.5)]))
    return root


@pytest.fixture
def night(scripted: Path, tmp_path: Path) -> Path:
    return shutil.copytree(scripted, tmp_path / "night")


def refused(*arguments: object) -> str:
    """What the command said: one line."""
    answer: Answer = call(*arguments, code=2)
    *progress, last = answer.err.splitlines()
    assert last.startswith("autoresearch: ") and "Traceback" not in answer.err, progress
    return last.removeprefix("autoresearch: ")


@pytest.mark.parametrize("command", [("prepare", *NUMPY[:2]), ("train", *NUMPY), ("run", "c", *NUMPY)])
def test_a_cache_of_nobody_is_one_sentence(
    command: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTORESEARCH_CACHE", "~nosuchuser/x")
    said = "AUTORESEARCH_CACHE names ~nosuchuser/x, and there is no home folder for ~nosuchuser; write the path in full"
    assert refused(*command) == said


def test_a_cache_that_cannot_be_written_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    text = "\n\n".join(synthetic_documents(700, seed=6))
    (texts / "one.txt").write_text(text, encoding="utf-8")
    prepare = ("prepare", "--preset", "numpy", "--corpus", f"folder:{texts}", "--set", "vocabulary=256")
    elsewhere = "; it is in the cache: mend that, or choose another folder for it with AUTORESEARCH_CACHE=DIR"

    def with_cache(path: Path) -> str:
        monkeypatch.setenv("AUTORESEARCH_CACHE", str(path))
        return refused(*prepare)

    monkeypatch.setenv("AUTORESEARCH_CACHE", str(tmp_path / "good"))
    call(*prepare)  # so that all is imported: nobody may not read every interpreter
    (tmp_path / "file").touch()
    said = with_cache(tmp_path / "file")
    assert said.startswith(str(tmp_path / "file")) and said.endswith(f": not a directory{elsewhere}")
    with as_nobody() as folder:
        mine = folder / "texts"
        mine.mkdir()
        (mine / "one.txt").write_text(text, encoding="utf-8")
        prepare = (*prepare[:4], f"folder:{mine}", *prepare[5:])
        (folder / "closed").mkdir(mode=0o555)
        assert with_cache(folder / "closed" / "cache") == f"{folder}/closed/cache: permission denied{elsewhere}"
    prepare = (*prepare[:4], f"folder:{texts}", *prepare[5:])
    with small_disk(tmp_path / "disk", "200k") as disk:
        assert with_cache(disk / "full").startswith(f"no space left for {disk / 'full'}")
        make_read_only(disk)
        assert with_cache(disk / "cache") == f"{disk}/cache: read-only file system{elsewhere}"


def test_a_prepared_cache_may_be_read_only(
    tmp_path: Path, corpus_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--preset", "numpy", "--corpus", f"folder:{corpus_folder}", "--set", "vocabulary=256")
    with small_disk(tmp_path / "disk", "20m") as disk:
        monkeypatch.setenv("AUTORESEARCH_CACHE", str(disk / "cache"))
        call("prepare", *options)
        make_read_only(disk)
        call("prepare", *options)
        call("train", *options, "--steps", 2, "--set", "score_bytes=2000", "--set", "peak_tflops=0.001")


@pytest.mark.parametrize(
    "command",
    [
        lambda root, into: ("export", into, "--dir", root),
        lambda root, into: ("train", *NUMPY, "--out", into),
        lambda root, into: ("run", into, *NUMPY),
        lambda root, into: ("init", into, *NUMPY),
    ],
    ids=["export", "train", "run", "init"],
)
def test_a_folder_that_cannot_be_made_is_refused_before_any_work(
    command: Callable[[Path, Path], tuple[object, ...]], night: Path, tmp_path: Path
) -> None:
    assert refused(*command(night, night / "train.py" / "x")).endswith(": not a directory")
    with small_disk(tmp_path / "disk") as disk:
        make_read_only(disk)
        said = refused(*command(night, disk / "x"))
        assert said == f"{disk / 'x'}: read-only file system; change its rights, or name another path"


def test_an_export_that_fills_the_disk_names_what_it_writes(night: Path, tmp_path: Path) -> None:
    weights = next(night.glob(".git/autoresearch/experiments/1/0/weights.safetensors"))
    with small_disk(tmp_path / "disk", "64k") as disk:
        (disk / "filler").write_bytes(bytes(60_000))
        said = refused("export", disk / "model", "--dir", night)
        assert said.startswith(f"no space left for {disk}") and str(weights) not in said
        assert [path.name for path in disk.iterdir()] == ["filler"]


@pytest.mark.parametrize("name", ["train.py", "program.md"])
def test_a_folder_in_a_files_place_is_named(name: str, night: Path) -> None:
    (night / name).unlink()
    (night / name).mkdir()
    for command in (("run", night, "--experiments", 1), ("try", "-m", "x", "--dir", night)):
        assert refused(*command) == f"{night / name}: is a directory; move it away, or name a file"
    call("status", "--dir", night)
    call("log", "--dir", night)
    call("show", 1, "--dir", night)


def test_a_campaign_that_cannot_be_read_is_not_missing(night: Path) -> None:
    with as_nobody() as folder:
        (folder / "closed").mkdir(mode=0)
        assert refused("status", "--dir", folder / "closed" / "night").endswith(
            ": permission denied; change its rights, or name another path"
        )


def test_without_a_home_all_but_the_cache_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("USERPROFILE", raising=False)
    monkeypatch.setattr("os.path.expanduser", str)  # as for a user whom no list has
    assert homes() == ()
    assert copies_of("numpy")
    assert parse(f"{sys.executable} -c pass").words[0] == sys.executable
    assert command_environment(parse(sys.executable), (), (), tmp_path).home == tmp_path
    with pytest.raises(UserError, match=r"--command-read names ~/notes, and there is no home folder for ~"):
        command_environment(parse(sys.executable), (), ["~/notes"], None)


def test_what_a_person_names_and_cannot_be_read_is_named(tmp_path: Path, night: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    assert refused("train", *NUMPY, "--trainer", folder).startswith(f"{folder}: is a directory")
    assert refused("init", tmp_path / "c", *NUMPY, "--program", folder).startswith(f"{folder}: is a directory")
    assert refused("init", tmp_path / "c", *NUMPY, "--trainer", tmp_path / "gone").startswith(
        f"{tmp_path / 'gone'}: no"
    )
    (tmp_path / "train.py").write_bytes("print(1)".encode("utf-16-le"))
    assert "train.py: expected UTF-8 text, got many NUL bytes" in refused(
        "train", *NUMPY, "--trainer", tmp_path / "train.py"
    )
    assert refused("train", *NUMPY[2:], "--preset", "~nosuchuser/p.toml").startswith("--preset names ~nosuchuser")
    assert refused("train", *NUMPY, "--corpus", "folder:~nosuchuser/x").startswith("--corpus names ~nosuchuser/x")
    assert completion.campaigns("~nosuchuser") == []
    assert "which is no UTF-8: rename the folder" in refused(
        "train", *NUMPY, "--corpus", os.fsdecode(b"folder:caf\xe9")
    )


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no umask")
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_an_exported_model_follows_the_umask(umask: int, night: Path, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        call("export", tmp_path / "model", "--dir", night)
    finally:
        os.umask(before)
    assert rights_below(tmp_path / "model") == (0o777 & ~umask, {0o666 & ~umask})


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no umask")
def test_a_trial_and_the_cache_follow_the_umask(tmp_path: Path, corpus_folder: Path) -> None:
    command = ["train", "--preset", "numpy", "--corpus", f"folder:{corpus_folder}", "--steps", "2", "--out", "trial"]
    for setting in ("vocabulary=256", "score_bytes=2000", "peak_tflops=0.001"):
        command += ["--set", setting]
    # A process of its own: tests fork those of trials from one that began with another umask.
    subprocess.run(
        [sys.executable, "-m", "core.cli", *command],
        cwd=tmp_path,
        env={**os.environ, "AUTORESEARCH_CACHE": str(tmp_path / "cache")},
        umask=0o027,
        check=True,
    )
    for folder in ("trial", "cache"):
        assert rights_below(tmp_path / folder) == (0o750, {0o640})


def rights_below(folder: Path) -> tuple[int, set[int]]:
    """The rights of the folder, and those of the files below."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return stat.S_IMODE(folder.stat().st_mode), {stat.S_IMODE(path.stat().st_mode) for path in files}


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are Unicode")
def test_a_campaign_whose_name_is_no_text_has_its_picture_and_its_model(night: Path, tmp_path: Path) -> None:
    night = night.rename(tmp_path / os.fsdecode(b"caf\xe9"))
    call("run", night, "--experiments", 0)
    assert (night / "progress.png").stat().st_size > 1000
    with Campaign.open(night) as campaign:
        assert campaign.name == "caf\ufffd"
