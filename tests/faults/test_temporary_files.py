"""A folder of temporary files that is cleaned, gone or full is the machine's fault: no verdict on the trainer."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from campaigns import ScriptedAgent, Steps
from support import PRESET, trainer_text

from core.campaign.campaign import Campaign
from core.events import Event, Progress
from core.records import UserError
from core.sandbox import selftest, tier
from core.trial.probe import probe

pytestmark = pytest.mark.skipif(not tier.available().enforced, reason="an unconfined trial can delete its own folder")

PAUSES = trainer_text(each="import time; time.sleep(0.05)")


def in_training(event: Event) -> bool:
    return isinstance(event, Progress) and event.phase == "train"


def in_scoring(event: Event) -> bool:
    return isinstance(event, Progress) and event.phase == "score"


@pytest.mark.parametrize("moment", [in_training, in_scoring])
def test_a_scratch_that_somebody_deletes(night: Path, scratches: Path, moment: Callable[[Event], bool]) -> None:
    cleaned = 0

    def clean(event: Event) -> None:
        nonlocal cleaned
        if moment(event) and not cleaned:
            for folder in scratches.iterdir():
                shutil.rmtree(folder, ignore_errors=True)
                cleaned += 1

    with Campaign.open(night, engine=Steps()) as campaign:
        before = campaign.status().experiments
        with pytest.raises(UserError, match=f"{scratches}/.*, where a trial ran, was deleted meanwhile"):
            campaign.run(ScriptedAgent([PAUSES]), on_event=clean)
        assert cleaned
        assert campaign.status().experiments == before
        campaign.run(ScriptedAgent([]))
        assert campaign.experiment(before + 1).val_bpb is not None


def test_a_folder_of_temporary_files_that_vanished(night: Path, scratches: Path) -> None:
    scratches.rmdir()
    with Campaign.open(night, engine=Steps()) as campaign:
        before = campaign.status().experiments
        with pytest.raises(UserError, match=f"{scratches} is gone: make it again, or set TMPDIR"):
            campaign.run(ScriptedAgent([PAUSES]))
        assert campaign.status().experiments == before


def test_no_room_for_temporary_files_is_what_the_doctor_finds(scratches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(scratches)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs Linux and root")
    try:
        (scratches / "filler").write_bytes(bytes(4096))
        assert f"no space left for {scratches}" in probe(PRESET.backend)["error"]
        assert f"no space left for {scratches}" in selftest.check().error
    finally:
        subprocess.run(["umount", "--lazy", str(scratches)], check=True)
