"""`autoresearch doctor`: a real look at this machine, and each thing that can lack, taken away."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import typer
from support import PRESET

import backends
import presets
from core.cli import doctor as command
from core.cli import resolve as asked
from core.data import prepare
from core.measure import doctor
from core.records import Preset, UserError
from core.sandbox import tier
from core.sandbox.selftest import SelftestResult
from core.sandbox.spawn import ReapedProcess
from core.system import accelerators, hardware, install
from core.system.conditions import HostLoad
from core.system.files import cache_root
from core.trial import probe as probing
from core.trial.supervisor import backend_environment

CPU = presets.load("cpu")
DEVICE = {"device": "cpu", "device_name": "a processor", "versions": {"torch": "2.13.0"}}
CHOICES = {"kernel": "sdpa (PyTorch's own)", "dtype": "float32 (no other)", "compile": "eager (asked for)"}
H100 = accelerators.Accelerator(
    name="NVIDIA H100 80GB HBM3", kind="cuda", memory_gb=79.6, free_gb=70.1, driver="570.133.20", busy=0.73
)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """No processes, no waiting and no accelerator: what each backend tells, for a test to change."""
    told: dict[str, dict[str, Any]] = {name: {**DEVICE, "choices": {}} for name in backends.names()}
    told["torch"] = {**DEVICE, "choices": CHOICES}
    monkeypatch.setattr(doctor, "probe", lambda backend, device="auto": told[backend])
    monkeypatch.setattr(doctor, "SAMPLE_SECONDS", 0.0)
    monkeypatch.setattr(accelerators, "accelerators", tuple)
    monkeypatch.setattr(hardware, "matrix_flops", lambda: 1e11)
    return told


def of(report: doctor.Report, about: str) -> list[doctor.Diagnosis]:
    return [one for one in report.diagnoses if one.subject == about]


# The real thing


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """`autoresearch doctor --preset cpu --json` with a cache that is not there, and that cache's folder."""
    root = tmp_path_factory.mktemp("doctor") / "cache"
    secret = {"AUTORESEARCH_CACHE": str(root), "ANTHROPIC_API_KEY": "sk-ant-not-to-be-told"}
    arguments = [sys.executable, "-m", "core.cli", "doctor", "--preset", "cpu", "--json"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, env={**os.environ, **secret})
    return done, root


def test_the_doctor_tells_what_is_here(real: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    pytest.importorskip("torch")
    done, root = real
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["ready"] is True and told["first"] == [] and told["preset"] == "cpu"
    machine = told["machine"]
    assert machine["cores"] == hardware.cores() and machine["processor"] == hardware.processor()
    assert machine["memory_gb"] == pytest.approx(hardware.memory_mb() / 1024)
    assert machine["matrix_flops"] > 1e8
    assert set(told["backends"]) == set(backends.names())
    assert told["backends"]["numpy"]["device"] == "cpu"
    assert told["backends"]["torch"]["versions"]["torch"]
    assert set(told["backends"]["torch"]["choices"]) == {"kernel", "dtype", "compile"}
    assert (told["chosen"]["resolved"], told["chosen"]["corpus"]) == ("cpu", "apidocs")
    assert told["git"]["version"].count(".") >= 1
    assert told["data"]["climbmix"] == {"vocabularies": [], "bytes": 0, "error": None}
    assert told["cache"] == {"folder": str(root), "bytes": 0, "parts": {}}
    assert told["disk"]["cache"]["free_gb"] > 0
    assert told["sandbox"]["tier"] == tier.available().name
    assert told["sandbox"]["unenforced"] == list(tier.available().unenforced)
    assert told["sandbox"]["error"] == ""
    assert {one["mark"] for one in told["findings"]} <= {"ok", "warning", "missing"}


def test_the_doctor_changes_nothing_and_tells_no_secret(real: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    done, root = real
    assert not root.exists()
    assert "sk-ant" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


# Backends


def test_a_backend_tells_of_itself_in_a_trials_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, str] = {}

    class Watched(ReapedProcess):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            seen.update(options["environment"])
            super().__init__(*arguments, **options)

    monkeypatch.setenv("SOME_TOKEN", "secret")
    monkeypatch.setattr(probing, "ReapedProcess", Watched)
    told = probing.probe("numpy", "cpu")
    assert told["device"] == "cpu" and told["choices"] == {} and set(told["versions"]) == {"numpy"}
    assert "SOME_TOKEN" not in seen
    pytest.importorskip("torch")
    probing.probe("torch", "cpu")
    assert backend_environment(CPU).variables(Path(seen["HOME"])).items() <= seen.items()


def test_a_device_that_is_not_there_is_told() -> None:
    assert probing.probe("numpy", "cuda") == {
        "error": "device 'cuda' with the numpy backend: it runs on the CPU only. Use --device cpu"
    }
    with pytest.raises(UserError, match="no backend 'numpi'"):
        probing.probe("numpi")


@pytest.fixture
def python_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a program in the place of the interpreter that describes a backend."""
    if sys.platform == "win32":
        pytest.skip("needs scripts that name their interpreter")

    def python_that(text: str) -> None:
        path = tmp_path / "python"
        path.write_text(f"#!{real_python} -S\nimport os, sys, time\n{text}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    real_python = sys.executable
    return python_that


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "print('{}', file=sys.stderr); sys.stderr.write('no kernel image\\n\\n'); sys.stderr.flush(); os.abort()",
            "its process ended by SIGABRT: no kernel image",
        ),
        ("sys.exit(3)", "its process ended with status 3: it printed nothing"),
        ("print('[1]'); print('{broken'); sys.exit('libtpu.so is held')", "ended with status 1: libtpu.so is held"),
        ("time.sleep(30)", "it said nothing within 0.5 s"),
    ],
)
def test_a_backend_that_dies_is_told(text: str, error: str, python_that: Callable[[str], None]) -> None:
    python_that(text)
    assert probing.probe("numpy", timeout=0.5 if "sleep" in text else 60.0)["error"].endswith(error)


def test_what_a_framework_prints_does_not_hide_the_answer(python_that: Callable[[str], None]) -> None:
    python_that("print('WARNING: ' + 'x' * 100); print('{\"device\": \"tpu\"}'); print('bye')")
    assert probing.probe("numpy") == {"device": "tpu"}


def test_a_framework_that_can_not_be_imported_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(device: str) -> str:
        raise ImportError("\nlibcudart.so.13: cannot open shared object file\nmore")

    monkeypatch.setattr(backends, "get", lambda name: SimpleNamespace(resolve=resolve))
    assert probing.probe_in_process("torch", "auto") == {
        "error": "ImportError: libcudart.so.13: cannot open shared object file"
    }


def test_a_broken_framework_stops_its_own_presets_only(quick: dict[str, dict[str, Any]]) -> None:
    quick["torch"] = {"error": "ImportError: libcudart.so.13"}
    report = doctor.examine(CPU)
    assert of(report, "torch")[0].message == "installed, but it fails: ImportError: libcudart.so.13"
    assert report.first == ["preset cpu: torch on cpu can't run here: ImportError: libcudart.so.13"]
    assert doctor.examine(presets.load("numpy")).first == []


def test_a_missing_framework_is_told_with_the_command_that_adds_it(
    quick: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = f"PyTorch is not installed. Install it with: {install.command('torch')}"
    monkeypatch.setattr(backends.get("torch"), "missing", lambda: reason)
    monkeypatch.setattr(doctor, "probe", probing.probe)
    monkeypatch.setattr(backends, "names", lambda: ["numpy", "torch"])
    report = doctor.examine(CPU)
    assert of(report, "torch")[0] == doctor.Diagnosis(subject="torch", status="missing", message=reason)
    assert report.first == [f"preset cpu: torch on cpu can't run here: {reason}"]
    assert report.json()["ready"] is False and report.json()["backends"]["torch"]["missing"] == reason


# Device and memory


def test_an_accelerator_that_is_left_idle_is_told(
    quick: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accelerators, "accelerators", lambda: (H100,))
    report = doctor.examine(CPU)
    assert report.first == []
    assert of(report, "accelerator")[0].message == "NVIDIA H100 80GB HBM3: 79.6 GB, 70.1 free, driver 570.133.20"
    assert of(report, "preset cpu")[1].fix == "--preset h100"
    unseen = of(report, "torch")[1]
    assert unseen.status == "warning" and "does not find it" in unseen.message and "570.133.20" in unseen.fix
    assert any("73% busy" in one.message and one.status == "warning" for one in of(report, "load"))


@pytest.mark.parametrize(
    ("rows", "free_gb", "mark", "said"),
    [
        (128, 70.1, "ok", ""),
        (128, 10.0, "warning", "only 10.0 GB are free"),
        (512, 70.1, "warning", "device_batch_size"),
    ],
)
def test_memory_is_held_against_the_presets_device(
    rows: int,
    free_gb: float,
    mark: str,
    said: str,
    quick: dict[str, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    choices = {"kernel": "flash-attn-3 (Hopper)", "dtype": "bfloat16 (Ampere)", "compile": "inductor (there)"}
    quick["torch"] = {**DEVICE, "device": "cuda", "device_name": H100.name, "choices": choices}
    monkeypatch.setattr(accelerators, "accelerators", lambda: (dataclasses.replace(H100, free_gb=free_gb),))
    preset = presets.load("h100", {"device_batch_size": str(rows), "total_batch_size": str(2**20)})
    report = doctor.examine(preset)
    (found,) = of(report, "preset h100")
    assert found.status == mark and said in found.fix
    assert report.facts["chosen"]["free_gb"] == free_gb
    if rows == 128:  # upstream's peak there was 45.1 GB
        assert report.facts["chosen"]["memory_gb"] == pytest.approx(45, abs=3)


# Machine


def test_no_git_is_told(quick: dict[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    report = doctor.examine(CPU)
    assert of(report, "git")[0].status == "missing"
    reason = "a campaign needs git, and there is no 'git' on the PATH: install it, then run the same command again"
    assert report.first == [f"git: {reason}"]


@pytest.mark.parametrize(
    ("free_gb", "mark", "ready"), [(80, "ok", True), (4.9, "warning", True), (0.4, "missing", False)]
)
def test_low_disk_is_told(
    free_gb: float, mark: str, ready: bool, quick: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = SimpleNamespace(free=int(free_gb * 2**30))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    report = doctor.examine(CPU)
    assert [one.status for one in of(report, "disk")] == [mark] * 2
    assert (not report.first) is ready


def test_a_cache_that_can_not_be_written_is_told(
    quick: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    (first,) = doctor.examine(CPU).first
    assert "set AUTORESEARCH_CACHE" in first


@pytest.fixture
def burning() -> Iterator[subprocess.Popen[bytes]]:
    """A process that uses all it gets of one core."""
    process = subprocess.Popen([sys.executable, "-S", "-c", "print(flush=True)\nwhile True: pass"], stdout=-1)
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def test_a_process_that_uses_much_is_named(burning: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "BUSY_PROCESS", 0.01)  # the tests may have to share the cores
    both = [psutil.Process(burning.pid), psutil.Process()]
    doctor._used(both)
    time.sleep(1.0)
    (found,) = doctor._used(both)  # this process slept
    assert found["pid"] == burning.pid and found["cores"] > 0.05
    assert "while True" not in str(found)  # of what it was called with nothing is told


@pytest.mark.parametrize(("minute", "share", "mark"), [(0.3, 0.05, "ok"), (0.3, 0.4, "warning"), (9.9, 0.05, "ok")])
def test_a_busy_machine_is_told_by_what_uses_its_cores_now(
    minute: float, share: float, mark: str, quick: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "cores", lambda: 4)
    monkeypatch.setattr(psutil, "getloadavg", lambda: (minute, 0.0, 0.0))
    monkeypatch.setattr(HostLoad, "stop", lambda load: {"other_load": share})
    report = doctor.examine(CPU)
    (found,) = of(report, "load")
    assert found.status == mark and bool(found.fix) == (mark != "ok")
    assert found.message.startswith(f"other processes use {4 * share:.1f} of 4 cores")
    assert report.facts["load"]["load_average"] == minute
    assert report.first == []


# Data


def test_a_prepared_corpus_is_told_with_its_size(
    quick: dict[str, dict[str, Any]], corpus_folder: Path, fresh_cache: Path
) -> None:
    preset = dataclasses.replace(PRESET, corpus=f"folder:{corpus_folder}")
    report = doctor.examine(preset)
    (found,) = of(report, f"corpus {preset.corpus}")
    assert found.status == "missing" and found.fix == "autoresearch prepare --preset test" and not found.blocks
    assert report.first == []
    prepare(preset.corpus, 256)
    report = doctor.examine(preset)
    (found,) = of(report, f"corpus {preset.corpus}")
    assert found.status == "ok" and "256 token ids" in found.message
    facts = report.facts["data"][preset.corpus]
    files = [path for path in fresh_cache.rglob("*") if path.suffix in (".values", ".offsets")]
    assert facts["vocabularies"] == [256]
    assert facts["bytes"] == pytest.approx(sum(path.stat().st_size for path in files), abs=64)
    assert report.facts["cache"]["parts"]["tokens"] > 0 and str(cache_root()) == report.facts["cache"]["folder"]


def test_a_corpus_that_can_not_be_had_is_told(
    quick: dict[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = doctor.examine(dataclasses.replace(PRESET, corpus=f"folder:{tmp_path / 'nowhere'}"))
    assert len(report.first) == 1 and "nowhere" in report.first[0]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (first,) = doctor.examine(dataclasses.replace(PRESET, corpus="tinystories")).first
    assert install.command("hub") in first and "autoresearch prepare" in first


# The sandbox


def test_a_platform_without_a_sandbox_is_told(
    quick: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tier, "available", lambda: tier.Tier("none", ("files",), "an old kernel"))
    (finding,) = of(doctor.examine(PRESET), "sandbox")
    assert (finding.status, finding.blocks) == ("warning", False)
    assert "trials run with your rights (an old kernel)" in finding.message


def test_a_sandbox_that_fails_blocks_and_names_the_way_out(
    quick: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "check", lambda: SelftestResult("the sandbox could not be applied: OSError"))
    report = doctor.examine(PRESET)
    (finding,) = of(report, "sandbox")
    assert (finding.status, finding.message) == ("missing", "the sandbox could not be applied: OSError")
    assert report.first[-1] == "sandbox: --no-sandbox runs trials with your rights, and every record says so"


# The command


def test_the_last_line_says_what_comes_next(
    quick: dict[str, dict[str, Any]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command.doctor()
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"ready: autoresearch run night --preset {asked.DEFAULT_PRESET}"
    assert any(line.startswith("sandbox") and tier.available().name in line for line in lines)
    quick["torch"] = {"error": "device 'cuda' is not here"}
    with pytest.raises(typer.Exit) as ended:
        command.doctor("h100")
    assert ended.value.exit_code == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2] == "not ready; first:"
    assert lines[-1] == "1. preset h100: torch on cuda can't run here: device 'cuda' is not here"


def test_a_file_of_numbers_is_called_by_its_path(
    quick: dict[str, dict[str, Any]], capsys: pytest.CaptureFixture[str], tmp_path: Path, fresh_cache: Path
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(presets.dump(presets.load("numpy")), encoding="utf-8")
    command.doctor(str(path), as_json=True)
    findings = {one["about"]: one for one in json.loads(capsys.readouterr().out)["findings"]}
    assert "preset mine" in findings
    assert findings["corpus apidocs"]["mend"] == f"autoresearch prepare --preset {path}"


def test_a_preset_that_is_not_there_is_a_users_mistake() -> None:
    with pytest.raises(UserError, match="did you mean"):
        command.doctor("smok")


def test_auto_is_looked_for_and_not_measured(
    quick: dict[str, dict[str, Any]], capsys: pytest.CaptureFixture[str], fresh_cache: Path
) -> None:
    pytest.importorskip("torch")
    command.doctor("auto", as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["preset"] == "auto" and told["chosen"]["backend"] == "torch"
    assert any("not measured yet" in one["told"] for one in told["findings"])
    assert not fresh_cache.exists()


def test_every_command_that_is_told_is_one(quick: dict[str, dict[str, Any]]) -> None:
    for preset in (CPU, presets.load("h100"), presets.load("numpy")):
        assert isinstance(preset, Preset)
        for one in doctor.examine(preset).diagnoses:
            if one.fix.startswith("autoresearch "):
                assert one.fix.split()[1] == "prepare" and f"--preset {preset.name}" in one.fix
