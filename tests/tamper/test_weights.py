"""Trainers that hand over something else than honest weights, or go on with them when the clock has stopped."""

from __future__ import annotations

import os
import sys
import textwrap
import uuid
from collections.abc import Callable

import psutil
import pytest
from support import trainer_text
from tamper.conftest import Case
from tamper.trainers import trainer

from core.sandbox import tier
from core.trial import audit

Run = Callable[..., Case]

HAND_OVER = """
import os
path = trial._scratch / "weights.safetensors"
{how}
trial._ask("finish", peak_memory_mb=None)
"""
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="what POSIX file systems have")
HEADER = """
def write(dtype, count, size):
    head = b'{"table":{"dtype":"%s","shape":[%d],"data_offsets":[0,%d]}}' % (dtype, count, size)
    path.write_bytes(len(head).to_bytes(8, "little") + head)
    os.truncate(path, 8 + len(head) + size)

"""

CONFINED = tier.available().enforced  # which limits the size of a file
FILES = {
    "nothing": ("pass", "crash", "handed over no weights"),
    "a pickle": ("import pickle; path.write_bytes(pickle.dumps(weights))", "crash", "no safetensors file"),
    "text": ("path.write_text('0.9 bits per byte')", "crash", "no safetensors file"),
    "a folder": ("path.mkdir()", "invalid", "no regular file"),
    "a link to a file of the system": ("path.symlink_to(os.devnull)", "invalid", "no regular file"),
    "a pipe": ("os.mkfifo(path)", "invalid", "no regular file"),
    "a sparse file beyond any memory": (
        "path.touch(); os.truncate(path, 2**40)",
        *(("crash", "File too large") if CONFINED else ("invalid", "the weights are no regular file of at most")),
    ),
    "a dtype without numbers that NumPy has": (
        HEADER + "write(b'BF16', 4, 8)",
        "crash",
        "is BF16, not float16/32/64 or an integer",
    ),
    "numbers that are none": (
        "from safetensors.numpy import save_file; table[3, 3] = np.inf; save_file({'table': table}, path)",
        "crash",
        "weight 'table' is not finite",
    ),
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=POSIX if n == "a pipe" else ()) for n in FILES])
def test_a_file_that_holds_no_weights_ends_the_trial(run: Run, name: str) -> None:
    how, verdict, reason = FILES[name]
    case = run(trainer(after=HAND_OVER.replace("{how}", how)))
    assert reason in case.trial.reason
    assert (case.trial.verdict, case.trial.val_bpb) == (verdict, None)
    assert not os.path.lexists(case.spec.folder / "weights.safetensors")


def test_a_process_that_leaves_the_group_changes_nothing_and_is_ended(run: Run) -> None:
    """It goes on after the clock, and would write better weights where the others were."""
    mark = uuid.uuid4().hex
    script = (
        "import pathlib, sys, time\\n"
        "while True:\\n"
        "    time.sleep(0.01)\\n"
        "    for path in pathlib.Path(sys.argv[1]).rglob('weights.safetensors'):\\n"
        "        path.write_bytes(b'better ones')\\n"
    )
    start = f"""
    import subprocess, sys
    subprocess.Popen([sys.executable, "-c", "{script}", str(trial._scratch), "{mark}"], start_new_session=True)
    """
    honest = run(trainer())
    case = run(trainer(before=start))
    assert mark not in " ".join(str(process.info["cmdline"]) for process in psutil.process_iter(["cmdline"]))
    if case.trial.verdict == "scored":  # what it may have spoiled before the end is the trainer's own file
        assert case.bpb == honest.bpb
        assert case.review().fault == ""


def test_a_thread_goes_on_training_for_nothing(run: Run) -> None:
    """After finish the weights are out of reach, and the process is ended."""
    go_on = """
    import threading
    from safetensors.numpy import save_file
    path = trial._scratch / "weights.safetensors"
    def train_on():
        while True:
            table[:] = 0
            if not path.exists():  # taken over: here is another one
                save_file({"table": table}, path)
    finish = trial.finish
    def finish_and_go_on(weights):
        finish({name: array.copy() for name, array in weights.items()})
        train_on()
    trial.finish = finish_and_go_on
    """
    case = run(trainer(after=go_on))
    assert case.trial.verdict == "scored"
    assert case.bpb == run(trainer()).bpb


def test_more_time_than_the_budget_is_an_overrun_whatever_the_trainers_clock_says(run: Run) -> None:
    stopped = """
    import time
    begun, sleep = time.time(), time.sleep
    for name in ("time", "monotonic", "perf_counter", "process_time"):
        setattr(time, name, lambda: begun)
    type(trial).progress = property(lambda self: 0.0, lambda self, value: None)
    """
    case = run(trainer(before=stopped, after="sleep(2.2)"), seconds=1.0)
    assert case.trial.verdict == "invalid"
    assert case.trial.reason.startswith("overran: ")
    assert case.trial.train_seconds > 3.0


def test_batches_after_the_last_are_not_had(run: Run) -> None:
    more = "again = list(trial.batches(16, 32))\nassert again == [], len(again)"
    case = run(trainer(after=more), steps=3)
    assert (case.trial.verdict, case.trial.reason) == ("scored", "")
    assert case.trial.steps == 3


def test_warm_up_teaches_nothing(run: Run) -> None:
    """Sixteen batches of random ids, however large, then one real one."""
    learn = """
    for tokens in trial.warmup(2048, 256):
        np.add.at(counts, (tokens[:, :-1], tokens[:, 1:]), 1.0)
    """
    alone, warmed = run(trainer(), steps=1), run(trainer(before=learn), steps=1)
    assert warmed.trial.verdict == "scored"
    assert warmed.bpb > alone.bpb
    assert warmed.bpb > 7.5


@pytest.mark.parametrize("when", ["in restore", "in the first answer"])
def test_training_that_goes_on_after_the_clock_is_seen(run: Run, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """Batches are handed over among the weights, and learned from when nobody looks at the clock."""
    monkeypatch.setattr(audit, "RESTORE_SECONDS", 0.5)
    hoard = 'kept = globals().setdefault("kept", []); kept.append(tokens)'
    text = trainer_text(each=hoard, after='trial.finish({"counts": counts * 0 + 1, "kept": np.stack(kept)})')
    learn = """
    import time
    counts = weights["counts"]
    def learned():
        for tokens in weights.pop("kept", ()):
            np.add.at(counts, (tokens[:, :-1], tokens[:, 1:]), 1.0)
            time.sleep(0.06)
        return np.log(counts / counts.sum(1, keepdims=True))
    """
    text = text[: text.index("    table = np.log")] + textwrap.dedent(learn).replace("\n", "\n    ")
    early = {"in restore": "table = learned()\n    return lambda tokens: table[tokens]"}
    text += "\n    " + early.get(when, "return lambda tokens: learned()[tokens]") + "\n"
    honest = run(text.replace("time.sleep(0.06)", "pass")).trial
    assert honest.verdict == "scored"
    late = run(text).trial
    assert late.verdict == "invalid"
    assert "restore and its first answer took 1." in late.reason
