"""Kills a scripted campaign at random points, resumes it, and prints what was lost.

    python tests/faults/kill_points.py [--points 200] [--seed 0] [--jobs 2] [--policy pairs]

Half of the kills come before a write drawn at random, half at a random moment to the whole process group; after a
third of them the resumed campaign is killed as well. Exit status 1 if anything was lost, doubled or contradictory.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from killing import Script  # noqa: E402

AGAIN = 1 / 3
SHORTEST = 0.0 if sys.platform == "linux" else 0.25  # seconds: before, nothing has been imported


@dataclasses.dataclass
class Figures:
    """Counts over all campaigns."""

    campaigns: int = 0
    points: int = 0  # kills that found the process alive
    rows: int = 0  # experiments and trials that were in a ledger when it was killed
    lost: int = 0  # of these, not in it, or not the same, when all was done
    doubled: int = 0  # rows beyond those of an undisturbed campaign, or an experiment twice
    unlike: int = 0  # campaigns whose end is not the undisturbed one's, or contradicts itself: HEAD, refs, fsck, files
    told: list[str] = dataclasses.field(default_factory=list)

    def __iadd__(self, other: Figures) -> Self:
        for field in dataclasses.fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))
        return self

    @property
    def clean(self) -> bool:
        return not (self.lost or self.doubled or self.unlike)


Row = tuple[str, int, int, str, str]


def recorded(root: Path) -> list[Row]:
    """Every experiment, trial and measurement: (table, number, trial, commit, record).

    From a copy: a transaction that was cut off is the campaign's to take back.
    """
    ledger = root / ".git" / "autoresearch" / "ledger.db"
    with tempfile.TemporaryDirectory() as scratch:
        for path in ledger.parent.glob("ledger.db*"):
            shutil.copy(path, scratch)
        if not ledger.exists():
            return []
        connection = sqlite3.connect(Path(scratch) / ledger.name)
        try:
            return connection.execute(
                "SELECT 'experiment', number, 0, candidate, record FROM experiments"
                " UNION ALL SELECT 'trial', experiment, trial, candidate, record FROM trials"
                " UNION ALL SELECT 'measurement', number, 0, candidate, record FROM measurements"
            ).fetchall()
        finally:
            connection.close()


def one(script: Script, seed: int, scratch: Path) -> Figures:
    """One campaign: killed, resumed, perhaps killed again, and at last run to its end."""
    draw = random.Random(seed)
    writes, expected = script.undisturbed()
    root, figures, before = scratch / str(seed), Figures(campaigns=1), []
    while True:
        if draw.random() < 0.5:
            killed = script.kill_at_write(root, draw.randrange(len(writes)))
        else:
            killed = script.kill_after(root, draw.uniform(SHORTEST, 2.5))
        figures.points += killed
        before.append(recorded(root))
        figures.rows += len(before[-1]) if killed else 0
        if draw.random() >= AGAIN:
            break
    try:
        script.finish(root)
        unlike = [key for key, value in script.state(root).items() if value != expected[key]]
    except AssertionError as error:
        unlike = [str(error).strip()]
    after = recorded(root)
    figures.lost = sum(row not in after for rows in before for row in rows)
    commits = [commit for table, _, _, commit, _ in after if table == "experiment"]
    rows = len(expected["facts"]) + sum(len(fact[9]) for fact in expected["facts"]) + len(expected["measurements"])
    figures.doubled = max(0, len(after) - rows) + len(commits) - len(set(commits))
    if unlike:
        figures.unlike = 1
        figures.told = [f"seed {seed}: {', '.join(unlike)}"]
    return figures


def kill(script: Script, points: int, seed: int, jobs: int) -> Figures:
    """Campaigns until so many kills have found their process alive."""
    figures, next_seed = Figures(), seed * 100_000
    script.undisturbed()
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(jobs) as pool:
        while figures.points < points:
            seeds = range(next_seed, next_seed + max(jobs, (points - figures.points) // 2))
            for found in pool.map(lambda one_seed: one(script, one_seed, Path(scratch)), seeds):
                figures += found
            next_seed = seeds.stop
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--policy", default="", help="pairs or belief, which ask for several trials; else greedy")
    asked = parser.parse_args()
    script = Script("faults.drive_pairs", asked.policy) if asked.policy else Script()
    begun = time.monotonic()
    figures = kill(script, asked.points, asked.seed, asked.jobs)
    seconds = time.monotonic() - begun
    sys.stdout.write(
        f"{figures.points} kills in {figures.campaigns} campaigns, seed {asked.seed}, {seconds:.0f} s\n"
        f"rows recorded when killed: {figures.rows}; lost: {figures.lost}; doubled: {figures.doubled}\n"
        f"campaigns that did not end as the undisturbed one (records, HEAD the best verified, refs, git fsck, files): "
        f"{figures.unlike}\n" + "".join(f"  {line}\n" for line in figures.told)
    )
    return 0 if figures.clean else 1


if __name__ == "__main__":
    sys.exit(main())
