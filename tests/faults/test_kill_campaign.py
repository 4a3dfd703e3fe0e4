"""SIGKILL at every write of a campaign, and at any moment; the same command again ends as if nothing had happened."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from killing import Script

SCRIPT = Script()


def check(root: Path, *kills: int) -> None:
    for write in kills:
        SCRIPT.kill_at_write(root, write)
    SCRIPT.finish(root)
    assert SCRIPT.state(root) == SCRIPT.undisturbed()[1]


def test_the_undisturbed_campaign_has_every_verdict() -> None:
    writes, expected = SCRIPT.undisturbed()
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
    writes, _ = SCRIPT.undisturbed()
    check(tmp_path / "c", [place for place, seen in enumerate(writes) if seen == write][occurrence])


def test_killed_again_and_again(tmp_path: Path) -> None:
    # Each time a little further: what one resume began, the next one finishes.
    check(tmp_path / "c", 40, 25, 30, 35, 20, 25, 45)


@pytest.mark.long
@pytest.mark.parametrize("share", range(16))
def test_killed_before_every_write(tmp_path: Path, share: int) -> None:
    writes, _ = SCRIPT.undisturbed()
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
            SCRIPT.kill_after(root, rng.uniform(0.3, 2.0))
        SCRIPT.finish(root)
        assert SCRIPT.state(root) == SCRIPT.undisturbed()[1]


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 5))
@pytest.mark.parametrize("policy", ["", "pairs", "belief"])
def test_killed_at_random_points_nothing_is_lost_or_doubled(seed: int, policy: str) -> None:
    """A share of what `kill_points.py` does by hand."""
    script = Path(__file__).with_name("kill_points.py")
    points = "16" if policy else "50"  # others run several trials an experiment
    command = [sys.executable, str(script), "--points", points, "--seed", str(seed), "--jobs", "1", "--policy", policy]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lost: 0; doubled: 0" in done.stdout
