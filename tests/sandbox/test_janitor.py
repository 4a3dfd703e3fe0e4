"""What killed supervisors left is removed: folders and the processes that live in them; what is in use stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from campaigns import ScriptedAgent, ScriptedEngine, a_campaign
from processes import alive

from core.events import Event, Notice
from core.measure import doctor
from core.sandbox import janitor
from core.system import scratch

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")

SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]
# A supervisor whose reaper is killed too: what it started, and its grandchild in a session of its own, live on.
SUPERVISOR = f"""
import subprocess, sys, time
from core.sandbox.spawn import ReapedProcess
from core.system import scratch
root = scratch.make()
(root / "scratch").mkdir()
(root / "weights").write_bytes(bytes(100_000))
child = "import subprocess, time; print(subprocess.Popen({SLEEPER}, start_new_session=True).pid, flush=True)"
child += "; time.sleep(600)"
process = ReapedProcess(
    [sys.executable, "-c", child], folder=root, private=root / "scratch", usage=root / "usage.json", cwd=root,
    environment={{"TMPDIR": str(root / "scratch")}},
)
print(process.pid, process.stdout.readline().decode().strip(), root, flush=True)
time.sleep(600)
"""


def environment(scratches: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(scratches)}


def test_what_a_killed_supervisor_and_its_killed_reaper_left_is_removed(scratches: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR], stdout=subprocess.PIPE, text=True, env=environment(scratches)
    ) as supervisor:
        assert supervisor.stdout is not None
        reaper, grandchild, root = supervisor.stdout.readline().split()
        left = psutil.Process(int(grandchild))
        assert not janitor.clean()
        assert alive([left]) and Path(root, "weights").exists()
        psutil.Process(int(reaper)).kill()
        supervisor.kill()
    removed = janitor.clean()
    assert alive([left]) == []
    assert list(scratches.iterdir()) == []
    assert removed.folders == 1 and removed.processes >= 1 and removed.bytes >= 100_000
    assert str(removed).startswith("removed what a killed run left: 1 folder of temporary files, 1")
    assert not janitor.clean()


ABANDONED = "from core.system import scratch; (scratch.make() / 'permuted.safetensors').write_bytes(bytes(5000))"


@pytest.fixture
def left(scratches: Path) -> Path:
    """A folder whose process has ended."""
    subprocess.run([sys.executable, "-c", ABANDONED], env=environment(scratches), check=True)
    return next(scratches.iterdir())


def test_a_run_removes_it_and_says_so(left: Path, tmp_path: Path) -> None:
    told: list[Event] = []
    with a_campaign(tmp_path / "c", engine=ScriptedEngine()) as campaign:
        campaign.run(ScriptedAgent([]), on_event=told.append)
    assert not left.exists()
    assert "removed what a killed run left: 1 folder" in next(one.text for one in told if isinstance(one, Notice))


def test_the_doctor_removes_it_and_says_so(left: Path) -> None:
    report = doctor.Report(preset="cpu")
    doctor._examine_disk(report)
    assert not left.exists()
    assert report.facts["removed"]["folders"] == 1
    assert "removed what a killed run left" in report.diagnoses[1].message


def test_what_a_killed_export_left_beside_its_target_is_known(tmp_path: Path) -> None:
    code = f"from pathlib import Path; from core.system import scratch; scratch.make(Path({str(tmp_path)!r}))"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert [path.name[0] for path in scratch.abandoned(tmp_path)] == ["."]
