"""A disk that fills up at any place of a campaign: told with its mend; with room again the same command goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import rights
from campaigns import ScriptedAgent, ScriptedEngine, Steps, a_campaign, facts_of, trainer
from support import trainer_text

from core.agents import registry
from core.campaign.campaign import Campaign
from core.records import UserError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")

TEXTS = [trainer(1.9), trainer(1.95), trainer(1.0, "crash"), trainer(1.8)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    with rights.small_disk(tmp_path / "disk") as path:
        yield path


def fill(disk: Path, left: int) -> Path:
    """A file that takes all but `left` bytes of the disk."""
    path = disk / "filler"
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    path.write_bytes(bytes(max(0, free - left)))
    return path


def states(root: Path) -> tuple[object, ...]:
    """What must be as if there had always been room."""
    with Campaign.open(root) as campaign:
        facts = facts_of(campaign)
        best = campaign.champion.commit
    told = [
        subprocess.run(["git", *command.split()], cwd=root, capture_output=True, text=True, check=True).stdout.strip()
        for command in ("status --porcelain", "fsck --strict --no-dangling", "rev-parse HEAD")
    ]
    assert told == ["", "", best]
    kept = sorted(path.relative_to(root).as_posix() for path in root.glob(".git/autoresearch/**/*") if path.is_file())
    return facts, kept, (root / "train.py").read_text()


def sweep(tmp_path: Path, disk: Path, lefts: range) -> set[str]:
    """Runs a campaign on a disk with so many bytes left, for each; what it said where it failed, by its first words."""
    base = tmp_path / "base"
    a_campaign(base).close()
    plain = shutil.copytree(base, tmp_path / "plain")
    with Campaign.open(plain, engine=ScriptedEngine()) as campaign:
        campaign.run(ScriptedAgent(TEXTS))
    expected, said = states(plain), set()
    for left in lefts:
        root = shutil.copytree(base, disk / "c")
        filler = fill(disk, left)
        try:
            with Campaign.open(root, engine=ScriptedEngine()) as campaign:
                campaign.run(ScriptedAgent(TEXTS))
        except UserError as error:
            told = str(error) if "free some" in str(error) else f"no mend is named with {left} bytes left: {error}"
            said.add("git" if told.startswith("git ") else "ledger" if "ledger.db: " in told else told[:19])
        filler.unlink()
        with Campaign.open(root, engine=ScriptedEngine()) as campaign:
            campaign.run(ScriptedAgent(TEXTS))
        assert states(root) == expected, f"{left} bytes left"
        shutil.rmtree(root)
    return said


def test_a_campaign_runs_out_of_space_here_and_there(small_disk: Path, tmp_path: Path) -> None:
    assert sweep(tmp_path, small_disk, range(4096, 240_000, 40_960)) >= {"git", "ledger"}


@pytest.mark.long
def test_a_campaign_runs_out_of_space_at_every_page(small_disk: Path, tmp_path: Path) -> None:
    assert sweep(tmp_path, small_disk, range(0, 400_000, 4096)) == {"git", "ledger", "no space left for /"}


def test_a_full_scratch_is_no_verdict_on_the_trainer(
    night: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(small_disk))
    filler = fill(small_disk, 90_000)
    with Campaign.open(night, engine=Steps()) as campaign:
        with pytest.raises(UserError, match=f"no space left for {small_disk}: free some"):
            campaign.run(registry.make("search"), experiments=1)
        assert campaign.status().experiments == 0
        assert list(small_disk.iterdir()) == [filler]
        filler.unlink()
        campaign.run(registry.make("search"), experiments=1)
        assert campaign.experiment(1).val_bpb is not None


def test_a_trial_that_fills_the_disk_itself_is_a_crash(
    night: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(small_disk))
    hog = 'open("hog", "wb").write(bytes(4 << 20))'
    greedy = trainer_text(each=hog)
    sly = trainer_text(each=f"try: {hog}\n        except OSError: pass")  # then there is no room for the next batch
    with Campaign.open(night, engine=Steps()) as campaign:
        campaign.run(ScriptedAgent([greedy, sly]))
        for experiment in campaign.experiments(1):
            assert (experiment.verdict, experiment.val_bpb) == ("crash", None)
            assert "No space left" in experiment.reason or "filled the disk" in experiment.reason
        assert campaign.status().crashed == 2
        assert list(small_disk.iterdir()) == []
