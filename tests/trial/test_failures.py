"""A trainer that runs out of memory gets one more attempt with half the rows on the device, and the record says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support import trainer_text

from core.records import Trial

Run = Callable[..., Trial]


def short_of_memory(fitting: int, at: str = "each") -> str:
    """Asks for an allocation that no machine grants where more than `fitting` of its four rows are granted."""
    late = "step == 2 and " if at == "each" else ""
    line = f"if {late}trial.device_rows > {fitting}: np.zeros((trial.device_rows, 2**50), np.float64)"
    return trainer_text(each=line) if at == "each" else trainer_text(before=line)


@pytest.mark.parametrize(("at", "when"), [("before", "before the first step"), ("each", "at step 3")])
def test_half_the_rows_on_the_device_and_the_same_batches(run: Run, tmp_path: Path, at: str, when: str) -> None:
    plain = run(trainer_text())
    assert (plain.device_rows, plain.notes) == (4, ())
    record = run(short_of_memory(2, at))
    assert record.verdict == "scored", record.reason
    assert record.device_rows == 2
    assert record.notes[0].startswith(f"out of memory {when} with 4 rows on the device at once; trained again with 2")
    assert (record.steps, record.rows, record.tokens) == (plain.steps, plain.rows, plain.tokens)
    # The counts are a function of the batches alone, so equal scores are equal batches.
    assert (record.val_bpb, record.weights_sha256) == (plain.val_bpb, plain.weights_sha256)
    assert record.wall_seconds > record.startup_seconds + record.train_seconds + record.score_seconds
    first = (tmp_path / "trial" / "2" / "output-out-of-memory.txt").read_text()
    assert "MemoryError" in first
    assert not (tmp_path / "trial" / "2" / "output.txt").exists()


def test_a_second_failure_is_a_crash_with_its_reason(run: Run) -> None:
    record = run(short_of_memory(1))
    assert record.verdict == "crash"
    assert "MemoryError" in record.reason
    assert record.device_rows == 2
    assert "with 4 rows" in record.notes[0]


def test_one_row_cannot_be_halved(run: Run) -> None:
    record = run(short_of_memory(0).replace("device_rows=4", "device_rows=1"))
    assert (record.verdict, record.device_rows, record.notes) == ("crash", 1, ())
    assert "MemoryError" in record.reason


def test_other_failures_are_not_tried_again(run: Run) -> None:
    record = run(trainer_text(each="if trial.device_rows > 2: raise ValueError('no')"))
    assert (record.verdict, record.notes) == ("crash", ())
    record = run(trainer_text().replace("    table =", "    raise MemoryError\n    table ="))
    assert (record.verdict, record.notes) == ("crash", ())
    assert record.reason.startswith("while scored: MemoryError")


def test_other_batches_after_the_failure_are_refused(run: Run) -> None:
    record = run(short_of_memory(2).replace("trial.batches(16,", "trial.batches(4 * trial.device_rows,"))
    assert record.verdict == "crash"
    assert "the same 16 x 32 tokens a step, and asked for other batches then: 8 x 32" in record.reason


def test_it_counts_from_its_own_first_batch(run: Run) -> None:
    """A failure that is only played wins no time: the second attempt's clock and progress start at its own batch."""
    each = """assert step or trial.progress < 0.2
        time.sleep(0.02)
        if trial.progress > 0.8 and trial.device_rows > 2:
            raise MemoryError"""
    record = run(trainer_text(each=each, before="import time"), seconds=1.0)
    assert record.verdict != "crash", record.reason
    assert record.device_rows == 2
    assert record.wall_seconds > record.startup_seconds + record.train_seconds + record.score_seconds + 0.8


def test_a_process_that_dies_with_the_word_for_it_is_tried_again(run: Run) -> None:
    die = "print('std::bad_alloc: MemoryError', flush=True); os.abort()"
    record = run(trainer_text(before="import os", each=f"if trial.device_rows > 2: {die}"))
    assert record.verdict == "scored", record.reason
    assert record.device_rows == 2
