"""What the process that writes to a campaign is doing, as others read it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from campaigns import a_campaign

from core import events
from core.records import UserError
from core.store import activity
from core.store.activity import KILLED, Activity
from core.store.layout import CampaignFolder
from core.store.lock import Busy


@pytest.fixture
def folder(tmp_path: Path) -> CampaignFolder:
    with a_campaign(tmp_path / "c") as campaign:
        return campaign.files


def ignored(event: events.Event) -> None:
    pass


def progress(phase: Any, fraction: float) -> events.Progress:
    return events.Progress(phase=phase, fraction=fraction, step=1, loss=None, tokens_per_second=None)


def now(folder: CampaignFolder) -> Activity:
    found = activity.read(folder)
    assert found is not None
    return found


def test_a_campaign_that_nobody_wrote_to(folder: CampaignFolder) -> None:
    assert activity.read(folder) is None
    folder.activity.write_text("{")
    assert activity.read(folder) is None
    folder.activity.write_text(json.dumps({"command": "run"}))
    assert activity.read(folder) is None


def test_events_are_noted_and_passed_on(folder: CampaignFolder) -> None:
    seen: list[events.Event] = []
    with activity.writing(folder, "try", 300.0, seen.append, "job") as tell:
        assert now(folder).running
        lines = []
        told: list[events.Event] = [
            events.Accepted(1),
            events.Preparing("tokenizing", 1, 2),
            events.Proposed(0, "baseline", "preset"),
            events.TrialStarted(0, 1),
            progress("startup", 0.5),
            progress("train", 212 / 300),
            progress("score", 0.1),
            events.Reviewing(0),
            events.Proposed(1, "an idea", "try"),
            events.TrialStarted(1, 1),
            progress("train", 0.5),
        ]
        for event in told:
            tell(event)
            lines.append(now(folder).line)
    assert seen == told
    baseline, own = "(the baseline, seed 1; then experiment 1)", "(experiment 1, seed 1)"
    assert lines == [
        "starting (then experiment 1)",
        "tokenizing (then experiment 1)",
        "starting (the baseline; then experiment 1)",
        f"starting up {baseline}",
        f"starting up {baseline}",
        f"212 of 300 s {baseline}",
        f"scoring {baseline}",
        f"the audit of its score {baseline}",
        "starting (experiment 1)",
        f"starting up {own}",
        f"150 of 300 s {own}",
    ]
    ended = now(folder)
    assert (ended.running, ended.failed, ended.target, ended.job) == (False, False, 1, "job")
    assert ended.ended.startswith("20")


def test_a_little_more_progress_is_not_written(folder: CampaignFolder) -> None:
    with activity.writing(folder, "run", 300.0, ignored) as tell:
        tell(progress("train", 0.1))
        tell(progress("train", 0.2))
        assert now(folder).seconds == 30.0


@pytest.mark.parametrize(
    ("error", "job", "accepted", "reason", "told"),
    [
        (UserError("no space"), "", False, "no space", True),
        (UserError("no space"), "job", True, "no space", False),
        (UserError("nothing to try"), "job", False, "nothing to try", True),  # its starter has said it
        (KeyboardInterrupt(), "job", True, "interrupted", False),
        (ZeroDivisionError("by zero"), "job", True, "ZeroDivisionError: by zero", False),
    ],
)
def test_what_ended_it(
    folder: CampaignFolder, error: BaseException, job: str, accepted: bool, reason: str, told: bool
) -> None:
    with (
        pytest.raises(type(error)),
        activity.writing(folder, "try", 1.0, ignored, job) as tell,
    ):
        if accepted:
            tell(events.Accepted(1))
        raise error
    found = now(folder)
    assert (found.failed, found.reason, found.told, found.running) == (True, reason, told, False)
    activity.mark_told(folder, found)
    assert now(folder).told


def test_a_killed_process_is_known_by_its_lock(folder: CampaignFolder) -> None:
    code = (
        "import os, sys; sys.path[:0] = sys.argv[2:]\n"
        "from pathlib import Path\nfrom core.store import activity\nfrom core.store.layout import CampaignFolder\n"
        "with activity.writing(CampaignFolder(Path(sys.argv[1])), 'run', 1.0, print):\n"
        "    print('writing', flush=True); input(); os._exit(1)\n"
    )
    root = Path(activity.__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", code, folder.root, root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert now(folder).running
        said = (
            rf"another process writes to this campaign: process {process.pid}, since 20.*: autoresearch run, starting"
        )
        with pytest.raises(Busy, match=said) as busy, activity.writing(folder, "try", 1.0, ignored):
            pass
        assert busy.value.status == 75
        process.communicate("\n")
    found = now(folder)
    assert (found.running, found.failed, found.reason, found.ended) == (False, True, KILLED, "")
    with activity.writing(folder, "try", 1.0, ignored):
        pass
    assert now(folder).command == "try"
