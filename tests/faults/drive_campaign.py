"""Run as a process of its own: one scripted campaign, to be killed before its n-th write.

    drive_campaign.py ROOT [KILL_AT]

What counts as a write is found by injection, not by a list kept by hand: every file opened for writing, renamed or
removed, every folder made or removed, every git process started (all by Python's audit events), and every statement
that SQLite runs. Without KILL_AT it goes on from wherever the last one was killed, and prints what it wrote as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from campaigns import ScriptedEngine, a_campaign, trainer  # noqa: E402

import core.campaign.experiment  # noqa: E402, F401 (its git asks for its version when it is imported, which writes nothing)
from core.agents.base import Agent, History  # noqa: E402
from core.campaign.campaign import Campaign  # noqa: E402
from core.events import Repeat  # noqa: E402
from core.records import Proposal, UserError  # noqa: E402

TEXTS = [trainer(1.9), trainer(1.95), trainer(1.0, "crash"), "x = (\n", trainer(1.8), trainer(1.8, "invalid")]
TRIED = [trainer(1.7), trainer(2.2)]
WRITES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree"}
GIT = {
    "check-ref-format", "init", "config", "hash-object", "mktree", "commit-tree", "update-ref", "read-tree", "ls-tree",
    "cat-file", "symbolic-ref", "ls-files", "update-index",
}  # fmt: skip


class Scripted(Agent):
    """Proposes by the number of the experiment, and once a repeat of the first."""

    name = "scripted"
    told = False

    def propose(self, history: History) -> Proposal | None:
        number = len(history)
        if number == 3 and not self.told:
            return Proposal(text=TEXTS[0], hypothesis="again", agent=self.name)
        if number > len(TEXTS):
            return None
        return Proposal(text=TEXTS[number - 1], hypothesis=f"idea {number}\n\nwhy", agent=self.name)

    def repeated(self, repeat: Repeat) -> None:
        self.told = True


class Writes:
    def __init__(self, kill_at: int | None) -> None:
        self.seen: list[str] = []
        self._kill_at = kill_at

    def tick(self, what: str) -> None:
        if len(self.seen) == self._kill_at:
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))  # on Windows SIGTERM ends it as abruptly
        self.seen.append(what)

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "subprocess.Popen":
            # git's own command stands behind its options
            command = [str(word) for word in arguments[1]]
            self.tick(next((f"git {word}" for word in command[1:] if word in GIT), "another git"))
        elif event in WRITES:
            self.tick(f"{event} {Path(str(arguments[0])).name}")
        elif event == "open":
            path, mode, flags = arguments
            if isinstance(path, int):
                return  # a pipe to a process
            written = any(letter in mode for letter in "wax+") if isinstance(mode, str) else False
            if written or (isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)):
                self.tick(f"open {Path(str(path)).name}")


def inject(writes: Writes) -> None:
    class Connection(sqlite3.Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:  # type: ignore[override]
            statement = " ".join(sql.split()[:3])
            if sql.startswith("INSERT"):
                writes.tick(statement)
            cursor = super().execute(sql, *values)
            if sql.startswith("INSERT"):
                writes.tick(f"after {statement}")
            return cursor

    connect = sqlite3.connect
    sqlite3.connect = lambda *values, **named: connect(*values, factory=Connection, **named)  # type: ignore[assignment]
    sys.addaudithook(writes.audit)


def drive(root: Path) -> None:
    try:
        campaign = Campaign.open(root, engine=ScriptedEngine())
    except UserError:
        campaign = a_campaign(root)
    with campaign:
        campaign.run(Scripted())
        for place, text in enumerate(TRIED):
            if campaign.status().experiments == len(TEXTS) + place:
                (campaign.root / "train.py").write_text(text)
                campaign.try_worktree(f"tried {place}")


def driven(act: Callable[[], None], kill_at: str | None) -> int:
    """Acts, ends the process at that write, and prints the writes that were seen."""
    counted = Writes(None if kill_at is None else int(kill_at))
    inject(counted)
    act()
    print(json.dumps(counted.seen))
    return 0


def main(arguments: list[str]) -> int:
    root, *rest = arguments
    return driven(lambda: drive(Path(root)), rest[0] if rest else None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
