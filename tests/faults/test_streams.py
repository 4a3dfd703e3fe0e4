"""Standard output that is full, closed or no longer read: named, with status 2, and the campaign stays whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from campaigns import a_campaign
from processes import AUTORESEARCH

from core.campaign.campaign import Campaign

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/dev/full, and descriptors of POSIX")

FULL = "standard output can't be written to (No space left on device): not all of the result was printed"
CLOSED = "standard output is closed: not all of the result was printed"


def ran(root: Path, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", f"{' '.join(AUTORESEARCH)} {command}"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
        timeout=60,
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("streams") / "c"
    a_campaign(root).close()
    return root


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("status >/dev/full", FULL),
        ("log --tsv >/dev/full", FULL),
        ("--help >/dev/full", FULL),
        ("status --json >&-", CLOSED),
    ],
)
def test_a_standard_output_that_can_not_be_written_to_is_named(root: Path, command: str, said: str) -> None:
    done = ran(root, command)
    assert (done.returncode, done.stderr) == (2, f"autoresearch: {said}\n")


def test_a_reader_that_has_seen_enough_ends_it_quietly(root: Path) -> None:
    done = ran(root, "presets | true")
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize("where", ["2>/dev/full", "2>&-"])
def test_what_can_not_be_said_changes_no_status(root: Path, where: str) -> None:
    assert ran(root, f"status nosuch {where}").returncode == 2
    assert ran(root, f"status {where}").stdout.startswith(str(root))


@pytest.mark.parametrize("where", [">/dev/full", ">&-", "| true"])
def test_a_run_names_it_and_goes_on_from_there(night: Path, where: str) -> None:
    done = ran(night, f"run --experiments 0 {where}")
    assert "standard output" in done.stderr
    assert "continues from here" in done.stderr
    assert "Traceback" not in done.stderr
    with Campaign.open(night) as campaign:
        assert campaign.status().experiments == 0
        assert list(campaign.verify(scores=False))
