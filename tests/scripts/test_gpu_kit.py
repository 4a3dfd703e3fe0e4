"""The GPU kit: its packs, its limits, and what is left of a run that fails, runs over or is killed. Needs no GPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts import gpu_kit, gpu_pack
from scripts.gpu_kit import Kit, Step
from scripts.gpu_pack import KitError

ROOT = Path(__file__).parents[2]
SLEEP = ["-c", "import time; print('{\"begun\": 1}', flush=True); time.sleep(60)"]


# ---- Packs -----------------------------------------------------------------------------------------------------------


def test_what_an_image_with_pytorch_and_jax_lacks_is_packed_at_the_pinned_versions() -> None:
    wanted = gpu_pack.missing_there(gpu_pack.IMAGE)
    assert [one.partition("==")[0] for one in wanted] == "gitdb gitpython nono-py platformdirs rustbpe smmap".split()
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert all(f"{one}\n" in pins for one in wanted)


def test_the_packages_of_another_image_are_read_from_pips_list(tmp_path: Path) -> None:
    listed = tmp_path / "have.txt"
    others = ["GitPython==3.1", "nono_py==0.16", "platformdirs", "rustbpe @ file:x"]
    listed.write_text("\n".join([*gpu_pack.IMAGE - {"matplotlib"}, *others]), encoding="utf-8")
    there = gpu_pack.names_in(listed)
    assert [one.partition("==")[0] for one in gpu_pack.missing_there(there)] == ["matplotlib"]
    with pytest.raises(KitError, match=r"pip list --format=freeze"):
        gpu_pack.names_in(tmp_path / "missing.txt")


def files_in(folder: Path, sizes: dict[str, int]) -> list[Path]:
    folder.mkdir()
    for number, (name, size) in enumerate(sizes.items()):
        (folder / name).write_bytes(bytes([number + 1]) * size)
    return sorted(folder.iterdir(), key=gpu_pack.order)


@settings(deadline=None, max_examples=30)
@given(sizes=st.lists(st.integers(1, 400), min_size=1, max_size=6), most=st.integers(40, 300))
def test_parts_hold_their_size_and_join_to_what_was_cut(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], most: int
) -> None:
    folder = tmp_path_factory.mktemp("pack")
    files = files_in(folder / "files", {f"{number}.bin": size for number, size in enumerate(sizes)})
    parts = gpu_pack.cut(files, folder / "kit", most)
    manifests = [gpu_pack.manifest(part) for part in parts]
    assert [one["part"] for one in manifests] == list(range(1, len(parts) + 1))
    assert all(sum(piece["size"] for piece in one["files"]) <= most for one in manifests)
    store = folder / "store"
    store.mkdir()
    for part, one in zip(parts, manifests, strict=True):
        for piece in one["files"]:
            content = (part / gpu_pack.piece_name(piece)).read_bytes()
            (store / f"{piece['name']}.{piece['begin']}").write_bytes(content)
    for path in files:
        whole = {"name": path.name, "bytes": path.stat().st_size}
        assert gpu_pack.join(store, whole, store / path.name)
        assert (store / path.name).read_bytes() == path.read_bytes()


def wheel(folder: Path, name: str, lines: int = 1) -> Path:
    """A wheel with one module, in a folder that others have as well."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"shared_by_two/{name}.py", "HERE = 'of the pack'\n" * lines)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def test_a_wheel_in_two_parts_is_installed_when_the_second_has_come(tmp_path: Path) -> None:
    small, path = wheel(tmp_path / "files", "kit_a"), wheel(tmp_path / "files", "kit_b", 100)
    size = path.stat().st_size
    first, second, third = gpu_pack.cut([small, path], tmp_path / "kit", size - 100)
    work = tmp_path / "work"
    assert gpu_pack.unpack([first, second], work) == {"installed": [small.name], "waiting": [path.name]}
    assert gpu_pack.unpack([third], work) == {"installed": [path.name], "waiting": []}
    assert sorted(one.stem for one in (work / "site" / "shared_by_two").iterdir()) == ["kit_a", "kit_b"]
    assert gpu_pack.unpack([first, second, third], work)["installed"] == []  # it is there


def test_a_damaged_pack_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    folder = tmp_path / "kit"
    (part,) = gpu_pack.cut(files_in(tmp_path / "files", {"git": 100}), folder, 10**6)
    assert [path.name for path in gpu_pack.parts_beside(folder)] == ["kit"]
    (part / "git").write_bytes(b"x" * 100)
    with pytest.raises(KitError, match=r"git is damaged: its SHA-256 is not the manifest's"):
        gpu_pack.unpack([part], tmp_path / "work")
    (part / "git").write_bytes(b"x" * 99)
    with pytest.raises(KitError, match=r"missing or cut short: carry the whole folder"):
        gpu_pack.unpack([part], tmp_path / "work")
    (part / gpu_pack.MANIFEST).write_text('{"format": 0}', encoding="utf-8")
    with pytest.raises(KitError, match="another version"):
        gpu_pack.unpack([part], tmp_path / "work")


def test_without_an_index_pack_says_what_it_did_not_get_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    assert gpu_kit.main(["pack", "--into", str(tmp_path / "kit")]) == 2
    assert "pip did not fetch gitdb==" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_pack_writes_over_nothing_but_a_pack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").write_text("dear", encoding="utf-8")
    assert gpu_kit.main(["pack", "--into", str(tmp_path / "letters")]) == 2
    assert "holds something else" in capsys.readouterr().err
    assert (tmp_path / "letters" / "a.txt").exists()


# ---- Runs ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    for name in ("out", "work"):
        (tmp_path / name).mkdir()
    return Kit(out=tmp_path / "out", work=tmp_path / "work", device="cpu", sizes=gpu_kit.SIZES["cpu"], limit=60)


def step(name: str, work: Any, *, seconds: float = 10, least: float = 0, group: str = "") -> Step:
    return Step(name=name, about="a test", seconds=seconds, least=least, work=work, group=group)


def states(kit: Kit) -> dict[str, str]:
    kept = json.loads((kit.out / gpu_kit.RESULTS).read_text(encoding="utf-8"))
    return {one["name"]: one["state"] for one in kept["steps"]}


def raises(error: Exception) -> Any:
    def work(kit: Kit, seconds: float) -> dict[str, Any]:
        raise error

    return work


def test_a_step_that_fails_or_runs_over_costs_only_itself(kit: Kit) -> None:
    def over(kit: Kit, seconds: float) -> dict[str, Any]:
        done = kit.call(SLEEP, seconds)
        assert done.over
        raise gpu_kit.StepError(f"ended at its limit after {gpu_kit.last_json(done.printed)}")

    begun = time.monotonic()
    kit.run(
        [
            step("fails", raises(gpu_kit.StepError("no such device"))),
            step("breaks", raises(KeyError("kernel"))),
            step("over", over, seconds=1),
            step("too-late", raises(AssertionError()), least=1000),
            step("works", lambda kit, seconds: {"missing": []}),
        ]
    )
    assert time.monotonic() - begun < 20
    failed = ["fails", "breaks", "over"]
    assert states(kit) == {**dict.fromkeys(failed, "failed"), "too-late": "left out", "works": "ok"}
    text = (kit.out / gpu_kit.SUMMARY).read_text(encoding="utf-8")
    for words in ("no such device", "KeyError: 'kernel'", "after {'begun': 1}", "it needs 1000", "all is here"):
        assert words in text
    assert "exit status" in (kit.out / gpu_kit.LOG).read_text(encoding="utf-8")
    assert len(list(kit.out.iterdir())) <= 8


def test_a_group_has_a_limit_of_its_own(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gpu_kit.GROUP_SECONDS, "some", 0.5)
    allowed: list[float] = []

    def work(kit: Kit, seconds: float) -> dict[str, Any]:
        allowed.append(seconds)
        time.sleep(0.4)
        return {}

    kit.run([step(name, work, least=0.2, group="some") for name in "abc"] + [step("after", work)])
    assert states(kit) == {"a": "ok", "b": "left out", "c": "left out", "after": "ok"}
    assert allowed[0] == 0.5


def test_steps_are_chosen_by_name_or_group_in_their_order() -> None:
    def named(*arguments: Any) -> list[str]:
        return [one.name for one in gpu_kit.chosen(*arguments)]

    assert named([], [])[:5] == ["prepare", "doctor", "cold", "warm", "profile"]
    assert named([], [])[-4:] == ["tests", "jax", "auto", "campaign"]
    assert named(["jax", "doctor"], []) == ["prepare", "doctor", "jax"]
    assert named(["variants"], ["prepare", "eager"]) == [name for name in gpu_kit.VARIANTS if name != "eager"]
    assert named([], ["variants"], ["prepare", "doctor", "cold"])[:2] == ["prepare", "warm"]
    with pytest.raises(KitError, match=r"expected steps among prepare, doctor.* got warn"):
        named(["warn"], [])


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_is_killed_leaves_results_that_can_be_read(tmp_path: Path, number: signal.Signals) -> None:
    words = ["--device", "cpu", "--only", "doctor", "--skip", "prepare", "--out", str(tmp_path / "out")]
    command = [sys.executable, str(ROOT / "scripts" / "gpu_kit.py"), "run", *words, "--work", str(tmp_path / "work")]
    command += ["--pack", str(gpu_pack.cut(files_in(tmp_path / "files", {"git": 9}), tmp_path / "kit", 99)[0])]
    results, log = tmp_path / "out" / gpu_kit.RESULTS, tmp_path / "out" / gpu_kit.LOG
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            while not (log.exists() and "$ python -m autoresearch doctor" in log.read_text(encoding="utf-8")):
                assert process.poll() is None
                time.sleep(0.02)
        finally:
            process.send_signal(number)
        printed = process.communicate(timeout=30)[0]
    expected = {signal.SIGKILL: (-9, "running"), signal.SIGTERM: (143, "interrupted")}[number]
    (entry,) = json.loads(results.read_text(encoding="utf-8"))["steps"]
    assert (process.returncode, entry["state"]) == expected
    assert expected[1] in (tmp_path / "out" / gpu_kit.SUMMARY).read_text(encoding="utf-8")
    if number == signal.SIGTERM:
        assert "doctor        interrupted" in printed


def test_the_rest_is_what_an_earlier_run_has_not_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = tmp_path / "work"
    work.mkdir()
    steps = [{"name": one.name, "about": "", "state": "ok", "found": {}} for one in gpu_kit.STEPS[1:]]
    steps[-1]["state"] = "left out"
    (work / gpu_kit.RESULTS).write_text(json.dumps({"steps": steps}), encoding="utf-8")
    where = ["--out", str(tmp_path / "out"), "--work", str(work), "--pack", str(tmp_path / "kit")]
    gpu_pack.cut(files_in(tmp_path / "files", {"git": 9}), tmp_path / "kit", 99)
    options = ["--device", "cpu", "--rest", "--limit", "5"]
    assert gpu_kit.main(["run", *options, *where]) == 1
    kept = json.loads((tmp_path / "out" / gpu_kit.RESULTS).read_text(encoding="utf-8"))["steps"]
    assert {one["name"] for one in kept if one["state"] == "left out"} == {"prepare", "campaign"}
    assert len(kept) == len(gpu_kit.STEPS)
    assert "campaign" in capsys.readouterr().out


def test_the_log_stays_small_enough_to_be_fetched(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_kit, "LOG_BYTES", 4000)
    kit.call(["-c", "print('first'); print('x' * 9000); print('last')"], 10)
    content = (kit.out / gpu_kit.LOG).read_text(encoding="utf-8")
    assert len(content) < 4000
    assert "$ python -c" in content and "last" in content and "[...]" in content


def test_a_trials_line_has_what_a_person_asks_for() -> None:
    record = {"tokens_per_second": 1.6e6, "mfu": 0.398, "steps": 95, "peak_memory_mb": 46182.4, "val_bpb": 1.01}
    times = {"startup_seconds": 61.2, "train_seconds": 30.1, "score_seconds": 4.0, "wall_seconds": 99.9}
    choices = {"kernel": "flex (Hopper)", "dtype": "bfloat16 (Ampere or newer)", "compile": "inductor (asked for)"}
    line = gpu_kit.outcome({"state": "ok", "found": {**record, **times, "choices": choices}})
    assert line == (
        "1,600,000 tokens/s; MFU 39.8%; 95 steps; 45.1 GB; 1.0100 bpb; start-up 61.2 s; training 30.1 s; "
        "scoring 4.0 s; wall 99.9 s; flex, bfloat16, inductor"
    )
