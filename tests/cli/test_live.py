"""Progress: bars on a terminal, sparse lines elsewhere."""

import dataclasses
import io
import re
import time

import pytest
from rich.console import Console
from view_records import an_experiment

from core import events
from core.cli.render.live import Follower, Preparation, TrialBar
from core.events import Moved, Progress
from core.records import Measurement


def plain() -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, width=160, highlight=False), file


def at(phase: str, fraction: float, step: int = 0, loss: float | None = None) -> Progress:
    return Progress(phase=phase, fraction=fraction, step=step, loss=loss, tokens_per_second=11_700.0)  # type: ignore[arg-type]


def test_without_a_terminal_a_phase_is_one_line() -> None:
    console, file = plain()
    with TrialBar(console, "experiment 3, seed 1: ") as bar:
        for phase in ("startup", "train", "score"):
            for hundredth in range(100):
                bar(at(phase, hundredth / 100, step=hundredth, loss=2.0))
    lines = file.getvalue().splitlines()
    assert [line.split(":")[1].split()[0] for line in lines] == ["starting", "training", "scoring"]
    assert "11.7K tokens/s" in lines[1]


def test_a_bar_leaves_nothing_on_a_terminal() -> None:
    file = io.StringIO()
    console = Console(file=file, width=120, force_terminal=True, color_system=None)
    with TrialBar(console) as bar:
        bar(at("train", 0.5, step=12, loss=2.345))
    shown = file.getvalue()
    assert "step 12  loss 2.345" in shown
    assert shown.rsplit("step 12", 1)[1].count("\x1b[2K") >= 1  # the line is erased after it was last drawn


@pytest.mark.parametrize("width", [40, 60, 80, 100, 160])
def test_a_bar_fits_and_keeps_the_time_that_is_left(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=True, color_system=None, legacy_windows=False)
    with TrialBar(console, "experiment 123, seed 1: ") as bar:
        bar(at("train", 0.0, step=1, loss=2.5))
        now += 100
        bar(at("train", 0.25, step=1234, loss=2.345))
        bar._progress.refresh()
        lines = [re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", line) for line in re.split(r"[\n\r]", file.getvalue())]
    last = [line for line in lines if line.strip()][-1]
    assert last.rstrip().endswith("5m 00s left")
    assert len(last) <= width
    assert ("step 1234" in last, "loss 2.345" in last, "tokens/s" in last) == (width >= 80, width >= 80, width >= 100)
    assert ("experiment 123, seed 1: training" in last) == (width >= 60)


def test_a_start_up_promises_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    with TrialBar(Console(file=file, width=80, force_terminal=True, color_system=None)) as bar:
        bar(at("startup", 0.5))
        bar._progress.refresh()
        assert "left" not in file.getvalue()
        bar(at("train", 0.5, step=3))
        bar._progress.refresh()
    assert "left" in file.getvalue()
    console, lines = plain()
    with TrialBar(console) as bar:
        bar(at("startup", 0.5))
    assert lines.getvalue().startswith("starting up 11.7K")
    assert "%" not in lines.getvalue()


def test_stages_of_a_preparation_are_told_once_each() -> None:
    console, file = plain()
    with Preparation(console) as bars:
        for stage in ("download", "tokens"):
            for done in range(5):
                bars(stage, done, 4)
    assert [line.split()[0] for line in file.getvalue().splitlines()] == ["download", "tokens"]


def test_what_an_agent_does_is_one_line_in_half_a_minute() -> None:
    console, file = plain()
    follow = Follower(console, lambda event: None)
    for answer in range(20):
        follow(events.Working("api:small", f"thinks, answer {answer}"))
    follow(events.Proposed(3, "wider", "api:small"))
    assert file.getvalue().splitlines() == ["api:small: thinks, answer 0", "experiment 3 (from api:small): wider"]


def test_a_campaign_is_followed_from_event_to_event() -> None:
    console, file = plain()
    judged: list[int] = []
    follow = Follower(console, lambda event: judged.append(event.experiment.number))
    experiment = an_experiment(4, "discard", val_bpb=1.5)
    for event in (
        events.Preparing("tokens", 1, 2),
        events.Proposed(4, "wider [red]heads[/red]", "search"),
        events.TrialStarted(4, 1),
        at("train", 0.5, 10, 2.0),
        events.TrialEnded(),
        events.Judged(experiment),
        events.Repeat("wider heads", "search", experiment),
        events.Notice("a notice"),
        events.Outlook("12 experiments at a spread"),
        events.Stopped("1 experiments, the limit"),
    ):
        follow(event)
    follow.close()
    text = file.getvalue()
    assert judged == [4]
    for part in (
        "tokens",
        "wider [red]heads[/red]",
        "experiment 4, seed 1: training",
        "a notice",
        "12 exp",
        "the limit",
    ):
        assert part in text
    assert "not run again: wider heads is experiment 4, discard with val_bpb 1.5000" in text


def test_measuring_again_is_followed() -> None:
    console, file = plain()
    follow = Follower(console, lambda event: None)
    trial = an_experiment(0, "keep", val_bpb=1.5).trials[0]
    for role, record in (
        ("champion", dataclasses.replace(trial, test_bpb=1.6)),
        ("baseline", dataclasses.replace(trial, verdict="crash", reason="out of memory")),
    ):
        follow(events.Measuring(4, 6, role, 12, 7))
        follow(at("train", 0.5, 10, 2.0))
        one = Measurement(purpose="confirm", series=12, role=role, experiment=12, commit="c", trial=record)  # type: ignore[arg-type]
        follow(events.Measured(one))
    follow(events.Confirming(champion=12, seeds=(3, 4), trials=4, seconds=1300))
    follow(events.Confirming(champion=12, seeds=(3, 4), trials=0, seconds=0))
    follow(events.Drifted(Moved(before=20_000, now=15_000), 4))
    follow(events.Drifted(None, 4))
    follow.close()
    text = file.getvalue()
    for part in (
        "5 of 6: champion (experiment 12), seed 7: training",
        "champion, seed 1: val 1.5000, test 1.6000 bpb in 0.5 s",
        "baseline, seed 1: crash, so it does not count: out of memory",
        "experiment 12 against the baseline, seeds 3, 4: 4 trials to run, about 21m 40s",
        "all of these trials have run",
        "the device's speed changed by -25% (20K -> 15K tokens/s): baseline and champion are measured again, 4 trials",
        "resumed",
    ):
        assert part in text
