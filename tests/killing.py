"""The scripted campaign that is killed and resumed: how it is driven, and what a kill must not change."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from campaigns import POLICIES, facts_of
from forking import ForkedModule, ForkServer

from core.campaign.campaign import Campaign

KEPT = ".git/autoresearch/"
TESTS = Path(__file__).parent
KILLED = {-9, 1, 15}  # by the signal; on Windows by TerminateProcess with the signal's number or 1


@functools.cache
def server() -> ForkServer:
    """What the drivers are forked from. It ends with this process."""
    return ForkServer(
        "core.campaign.experiment",
        "faults.drive_campaign",
        "faults.drive_drift",
        "faults.drive_pairs",
        "faults.drive_studies",
        path=str(TESTS),
    )


def drive(module: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs a driver in a process of its own."""
    if sys.platform == "linux":
        return ForkedModule(server(), module, *arguments).finish()
    return subprocess.run(command(module, *arguments), capture_output=True, text=True, check=False)


def command(module: str, *arguments: object) -> list[str]:
    return [sys.executable, str(TESTS / f"{module.replace('.', '/')}.py"), *map(str, arguments)]


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()


@dataclass(frozen=True)
class Script:
    """A scripted campaign: the driver that runs it, and the policy that the driver is given."""

    module: str = "faults.drive_campaign"
    policy: str = ""

    def drive(self, root: Path, *kill_at: int) -> subprocess.CompletedProcess[str]:
        return drive(self.module, *self._arguments(root), *kill_at)

    def finish(self, root: Path) -> list[str]:
        """The same command again, to the end: what it wrote."""
        done = self.drive(root)
        assert done.returncode == 0, done.stderr
        writes: list[str] = json.loads(done.stdout)
        return writes

    @functools.cache  # noqa: B019 (a few scripts, for as long as the tests run)
    def undisturbed(self) -> tuple[list[str], dict[str, Any]]:
        """What a campaign that nobody kills writes, and its state at the end."""
        with tempfile.TemporaryDirectory() as scratch:
            root = Path(scratch) / "c"
            writes = self.finish(root)
            return writes, self.state(root)

    def kill_at_write(self, root: Path, write: int) -> bool:
        """Goes on with the campaign until it is killed before that write; False if it ended before."""
        done = self.drive(root, write)
        assert done.returncode in KILLED or done.returncode == 0, done.stderr
        return done.returncode != 0

    def kill_after(self, root: Path, seconds: float) -> bool:
        """Goes on and kills the whole process group after so long, as a power cut does: a git may be in a write too."""
        process: ForkedModule | subprocess.Popen[bytes]
        arguments = self._arguments(root)
        if sys.platform == "linux":
            process = ForkedModule(server(), self.module, *arguments)
        else:
            process = subprocess.Popen(
                command(self.module, *arguments), start_new_session=True, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )  # fmt: skip
        killed = False
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            killed = True
            if hasattr(os, "killpg"):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
            process.wait()
            # A person's `git commit` may hold the index's lock, so it is theirs to remove, as git tells them to.
            (root / ".git" / "index.lock").unlink(missing_ok=True)
        if isinstance(process, ForkedModule):
            process.finish()
        assert killed or process.returncode == 0
        return killed

    def state(self, root: Path) -> dict[str, Any]:
        """All that a kill must not change. AssertionError where it contradicts itself."""
        with Campaign.open(root, policy=POLICIES.get(self.policy)) as campaign:
            found = campaign.experiments()
            assert git(root, "rev-parse", "HEAD") == campaign.champion.commit
            refs = git(root, "for-each-ref", "--format=%(refname) %(objectname)", "refs/experiments").splitlines()
            assert sorted(refs) == sorted(f"refs/experiments/{e.number} {e.commit}" for e in found)
            assert git(root, "fsck", "--strict", "--no-dangling") == ""
            assert [e.number for e in found] == list(range(len(found)))
            assert [check for check in campaign.verify(scores=False) if check.fault] == []
            files = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
            return {
                "facts": facts_of(campaign),
                "measurements": [
                    (one.purpose, one.series, one.role, one.experiment, one.trial.seed, one.trial.val_bpb,
                     one.trial.test_bpb) for one in campaign.ledger.all_measurements()
                ],
                "confirmed": (confirmed := campaign.confirmation()) and confirmed.line,
                "status": git(root, "status", "--porcelain"),
                "train.py": (root / "train.py").read_text(),
                "subjects": git(root, "log", "--format=%B"),
                "files": {name for name in files if not name.startswith(".git/") or name.startswith(KEPT)},
            }  # fmt: skip

    def _arguments(self, root: Path) -> list[object]:
        return [root, self.policy] if self.policy else [root]
