"""SIGKILL at every write of a campaign, and at any moment; the same command again ends as if nothing had happened."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from campaigns import facts_of

from core.campaign import Campaign

DRIVER = Path(__file__).with_name("drive_campaign.py")
KILLED = {-9, 1, 15}  # by the signal; on Windows by TerminateProcess with the signal's number or 1


def command(root: Path, *arguments: object) -> list[str]:
    return [sys.executable, str(DRIVER), str(root), *map(str, arguments)]


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()


def state(root: Path) -> dict[str, Any]:
    """All that a kill must not change."""
    with Campaign.open(root) as campaign:
        found = campaign.experiments()
        best = min((e for e in found if e.val_bpb is not None), key=lambda e: e.val_bpb or 0)
        assert git(root, "rev-parse", "HEAD") == best.commit
        refs = git(root, "for-each-ref", "--format=%(refname) %(objectname)", "refs/experiments").splitlines()
        assert sorted(refs) == sorted(f"refs/experiments/{e.number} {e.commit}" for e in found)
        assert git(root, "fsck", "--strict", "--no-dangling") == ""
        assert [e.number for e in found] == list(range(len(found)))
        files = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
        return {
            "facts": facts_of(campaign),
            "status": git(root, "status", "--porcelain"),
            "train.py": (root / "train.py").read_text(),
            "subjects": git(root, "log", "--format=%B"),
            "files": {path for path in files if not path.startswith(".git/") or path.startswith(".git/autoresearch/")},
        }


def finish(root: Path) -> list[str]:
    """The same command again, to the end: what it wrote."""
    done = subprocess.run(command(root), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    writes: list[str] = json.loads(done.stdout)
    return writes


@functools.cache
def undisturbed() -> tuple[list[str], dict[str, Any]]:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "c"
        writes = finish(root)
        return writes, state(root)


def check(root: Path, *kills: int) -> None:
    for kill_at in kills:
        done = subprocess.run(command(root, kill_at), capture_output=True, text=True, check=False)
        assert done.returncode in KILLED or done.returncode == 0, done.stderr
    finish(root)
    assert state(root) == undisturbed()[1]


def test_the_undisturbed_campaign_has_every_verdict() -> None:
    writes, expected = undisturbed()
    assert [fact[3] for fact in expected["facts"]] == [
        "keep", "keep", "discard", "crash", "crash", "keep", "invalid", "keep", "discard",
    ]  # fmt: skip
    assert expected["status"] == ""
    assert len(writes) > 150  # the injection is in place


@pytest.mark.parametrize(
    ("write", "occurrence"),
    [
        ("os.rename train.py", 0),  # founding: the trainer is in the root, the repository not yet
        ("os.rename .git", 0),
        ("git update-ref", 1),  # the baseline's ref
        ("INSERT INTO trials", 1),  # the baseline's second seed
        ("git commit-tree", 1),
        ("git update-ref", 2),  # experiment 1 is committed, not pinned
        ("after INSERT INTO trials", 2),
        ("INSERT INTO experiments", 1),  # experiment 1, a keep: its row, then the branch, then the work tree
        ("after INSERT INTO experiments", 1),
        ("git update-ref", 3),
        ("git update-index", 0),
        ("os.remove weights.safetensors", 0),
        ("INSERT INTO experiments", 7),  # the first `try`
        ("after INSERT INTO experiments", 8),  # the second, discarded: the champion's text not yet back
    ],
)
def test_killed_before(tmp_path: Path, write: str, occurrence: int) -> None:
    writes, _ = undisturbed()
    check(tmp_path / "c", [place for place, seen in enumerate(writes) if seen == write][occurrence])


def test_killed_again_and_again(tmp_path: Path) -> None:
    # Each time a little further: what one resume began, the next one finishes.
    check(tmp_path / "c", 40, 25, 30, 35, 20, 25, 45)


@pytest.mark.long
@pytest.mark.parametrize("share", range(16))
def test_killed_before_every_write(tmp_path: Path, share: int) -> None:
    writes, _ = undisturbed()
    for kill_at in range(share, len(writes), 16):
        check(tmp_path / str(kill_at), kill_at)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(8))
def test_killed_with_its_children_at_any_moment(tmp_path: Path, seed: int) -> None:
    """The whole process group at once, as at a power cut: a git may be in the middle of a write too."""
    rng = random.Random(seed)
    for attempt in range(8):
        root = tmp_path / str(attempt)
        for _ in range(rng.randrange(1, 4)):
            process = subprocess.Popen(
                command(root), start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            time.sleep(rng.uniform(0.3, 2.0))
            if hasattr(os, "killpg"):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
            process.wait()
        remove_young_locks(root)
        finish(root)
        assert state(root) == undisturbed()[1]


def remove_young_locks(root: Path) -> None:
    """A minute passes: locks that a killed git left behind are only then known to be nobody's."""
    for lock in (root / ".git").rglob("*.lock"):
        os.utime(lock, (time.time() - 120, time.time() - 120))
        if lock.name == "index.lock":
            lock.unlink()  # which a person does, as git tells them to
