"""What a run says before its first experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from campaigns import ScriptedAgent, a_campaign, a_trial, events_of, trainer
from view_records import an_experiment

from core import events
from core.campaign.foreword import foreword
from core.campaign.judge.base import Noise
from core.campaign.judge.greedy import LowerWins
from core.store.program import Limits

TRIALS = tuple(a_trial(val_bpb=score, wall_seconds=300.0, peak_memory_mb=14_300.0) for score in (1.5, 1.51, 1.515))
BASE = an_experiment(0, "keep", val_bpb=1.5, spread=0.015, trials=TRIALS)
NOISE = Noise(seeds=0.0089**2, seeds_freedom=2, pairs=0.0, pairs_freedom=0)
LINE = "12 experiments at a spread of 0.015: gains under 0.010 will not be told from luck"


def said(limits: Limits, **values: Any) -> list[str]:
    defaults: dict[str, Any] = dict(noise=NOISE, most=100.0, seconds=3600.0, pairs=4, held=True)
    return foreword(BASE, BASE, limits, **{**defaults, **values})


def test_what_the_hours_can_show() -> None:
    assert said(Limits()) == [LINE]
    assert said(Limits(), most=0.0) == []
    paired = Noise(seeds=0.0089**2, seeds_freedom=2, pairs=2 * 0.0044**2, pairs_freedom=4)
    assert said(Limits(), noise=paired)[0].endswith("gains under 0.0051 will not be told from luck")
    assert said(Limits(), noise=None)[0].startswith("the noise is unknown")


@pytest.mark.parametrize(
    ("limits", "line"),
    [
        (
            Limits(memory_mb=12_000.0),
            "the champion uses 14,300 MB, program.md allows 12,000: the first candidate within",
        ),
        (Limits(val_bpb=1.6), ""),
        (Limits(val_bpb=1.05), "the champion reaches 1.5000 bpb, program.md allows 1.0500: the first candidate"),
    ],
)
def test_limits_that_the_champion_breaks(limits: Limits, line: str) -> None:
    found = said(limits)
    assert found[0] == LINE and len(found) == (2 if line else 1)
    assert found[-1].startswith(line)


def test_limits_that_can_not_be_held() -> None:
    trials = (a_trial(peak_memory_mb=None),)
    base = an_experiment(0, "keep", val_bpb=1.5, trials=trials)
    values: dict[str, Any] = dict(noise=NOISE, most=1.0, seconds=9.0, pairs=4)
    assert foreword(base, base, Limits(memory_mb=5.0), held=True, **values)[-1] == (
        "program.md limits memory, which no trial measures on this device: it is not held to that"
    )
    assert foreword(base, base, Limits(memory_mb=5.0), held=False, **values)[-1] == (
        "program.md sets limits or prices of a verdict, and this campaign's policy knows none"
    )


def test_a_run_says_it_once_the_baseline_is_known(tmp_path: Path) -> None:
    """The two seeds of this baseline lie 0.01 apart, and a policy without beliefs gives a change one trial."""
    seen: list[events.Event] = []
    with a_campaign(tmp_path / "c", policy=LowerWins()) as campaign:
        campaign.run(ScriptedAgent([trainer(1.9)]), experiments=12, on_event=seen.append)
    kinds = [type(event) for event in seen]
    place = kinds.index(events.Outlook)
    assert kinds.index(events.Judged) < place < kinds.index(events.Proposed, kinds.index(events.Proposed) + 1)
    assert [event.text for event in events_of(events.Outlook, seen)] == [
        "12 experiments at a spread of 0.010: gains under 0.016 will not be told from luck"
    ]
