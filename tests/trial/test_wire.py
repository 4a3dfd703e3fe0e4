"""What a trial sends can neither hold its supervisor up, nor end it, nor reach a terminal unseen."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from support import trainer_text

from core.records import UserError
from core.trial.process import TrialFailed, unexpected_as_crash

Run = Callable[..., Any]  # a Trial; Any, for what is None only after a failure

RAW = "import struct; put = lambda body: (trial._channel._writer.write(struct.pack('>I', len(body)) + body), "
RAW += "trial._channel._writer.flush())"


@pytest.mark.parametrize(
    "body",
    [
        '{"type": "report", "loss": %s}',
        '{"type": "finish", "peak_memory_mb": %s}',
        '{"type": "batch", "rows": 16, "length": %s}',
        '{"type": "describe", "flops_per_token": %s, "choices": {}}',
    ],
)
def test_a_whole_number_of_400_digits_is_a_crash(run: Run, body: str) -> None:
    trial = run(trainer_text(each=f"{RAW}; put({body % ('9' * 400)!r}.encode())"))
    assert trial.verdict == "crash"
    assert trial.reason == "broke the protocol: a message has a whole number of 400 digits"


@pytest.mark.parametrize("kind", ["warmup", "batch"])
def test_requests_whose_answers_nobody_reads_end_at_the_phases_deadline(run: Run, kind: str) -> None:
    flood = f"[trial._channel.send({kind!r}, rows=16, length=32) for _ in range(4000)]; import time; time.sleep(600)"
    text = trainer_text(before=flood) if kind == "warmup" else trainer_text(each=flood)
    begun = time.monotonic()
    trial = run(text, startup_seconds=2.0, silence_seconds=1.0)
    assert (trial.verdict, trial.reason) == ("crash", "does not read what it asked for: 64 messages wait to be read")
    assert time.monotonic() - begun < 20


def test_what_nobody_foresaw_is_the_trials_crash_and_not_the_runs_end() -> None:
    served = unexpected_as_crash("a message of type 'report'")
    with pytest.raises(TrialFailed, match=r"'report' could not be served: OverflowError: too large"), served:
        raise OverflowError("too large")
    for passing in (TrialFailed("reason", "invalid"), UserError("mend it"), OSError(5, "disk"), AssertionError()):
        with pytest.raises(type(passing)), unexpected_as_crash("a message"):
            raise passing


ODD = "\x1b[31mred\x1b[0m \x9b31m \u202eback\u2066 end\x07"


def test_a_trainers_words_are_cleaned_where_they_come_in(run: Run) -> None:
    choices = f"trial.describe(flops_per_token=1.0, **{{'ker{ODD}nel': 'odd{ODD} (why{ODD})'}})"
    trial = run(trainer_text(before=choices, each=f"raise type('Bad{ODD}', (Exception,), {{}})('said {ODD}')"))
    assert trial.verdict == "crash"
    assert trial.reason.startswith("Badred 31m back end: said red 31m back end (line ")
    assert trial.choices == {"kerred 31m back endnel": "oddred 31m back end (whyred 31m back end)"}
