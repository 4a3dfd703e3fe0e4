"""SIGKILL while a champion is ablated and carried to another scale: nothing lost, nothing doubled."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import killing
import pytest
from campaigns import facts_of

from core.campaign.campaign import Campaign

DRIVER = "faults.drive_studies"


def state(root: Path) -> dict[str, Any]:
    """All that a kill must not change."""
    with Campaign.open(root) as campaign:
        files = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
        return {
            "facts": facts_of(campaign),
            "measurements": [
                (one.purpose, one.series, one.role, one.experiment, one.trial.seed, one.trial.val_bpb)
                for one in campaign.ledger.all_measurements()
            ],
            "altered": campaign.ledger.altered(),
            "files": {name for name in files if not name.startswith(".git/") or name.startswith(".git/autoresearch/")},
        }


def finish(root: Path) -> list[str]:
    done = killing.drive(DRIVER, root)
    assert done.returncode == 0, done.stderr
    writes: list[str] = json.loads(done.stdout)
    return writes


@functools.cache
def undisturbed() -> tuple[list[str], dict[str, Any]]:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "c"
        return finish(root), state(root)


def within() -> list[int]:
    """The writes from the last verdict to the last row."""
    writes, _ = undisturbed()
    decided = [place for place, seen in enumerate(writes) if seen == "after INSERT INTO experiments"]
    rows = [place for place, seen in enumerate(writes) if seen == "after INSERT INTO measurements"]
    return list(range(decided[-1], rows[-1] + 1))


def test_the_undisturbed_studies() -> None:
    _, expected = undisturbed()
    rows = [(purpose.partition("-")[0], role, seed) for purpose, _, role, _, seed, _ in expected["measurements"]]
    assert sorted(rows[:4]) == [
        ("ablate", "champion", 3), ("ablate", "champion", 4), ("ablate", "without 2", 3), ("ablate", "without 2", 4),
    ]  # fmt: skip
    assert rows[4:] == [
        ("transfer", "baseline", 5), ("transfer", "champion", 5),
        ("transfer", "champion", 6), ("transfer", "baseline", 6),
    ]  # fmt: skip
    assert expected["altered"] == [] and len(within()) > 60


@pytest.mark.parametrize("share", [0.05, 0.3, 0.45, 0.6, 0.8, 0.99])
def test_killed_within(tmp_path: Path, share: float) -> None:
    places = within()
    check(tmp_path / "c", places[int(share * len(places))])


@pytest.mark.long
@pytest.mark.parametrize("share", range(8))
def test_killed_before_every_write_within(tmp_path: Path, share: int) -> None:
    for kill_at in within()[share::8]:
        check(tmp_path / str(kill_at), kill_at)


def check(root: Path, *kills: int) -> None:
    for kill_at in kills:
        done = killing.drive(DRIVER, root, kill_at)
        assert done.returncode in killing.KILLED or done.returncode == 0, done.stderr
    finish(root)
    assert state(root) == undisturbed()[1]
