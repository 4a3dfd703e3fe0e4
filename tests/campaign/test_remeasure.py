"""Campaigns whose device changes its speed: what is measured again, when, and what candidates are compared with."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from campaigns import ScriptedAgent, ScriptedEngine, a_campaign, a_trial, events_of, trainer

from core import events
from core.campaign.campaign import Campaign
from core.campaign.judge.base import Decision, Evidence
from core.campaign.judge.greedy import LowerWins, champion_bpb, spread_of_seeds
from core.cli.render.live import _drifted
from core.records import Experiment, Measurement, Trial, UserError
from core.trial.spec import TrialSpec

FAST, SLOW = 20_000.0, 16_000.0
WORSE = 0.04  # bits per byte that the slower device costs
SLOW_FROM = 5  # the number of the experiment with which the device gets slower
# The baseline, experiments at full speed (1 is kept), then slow ones; after the third of those it is seen.
TEXTS = [trainer(score) for score in (1.80, 1.95, 1.96, 1.97, 1.98, 1.99, 1.91, 1.78, 1.92, 1.93, 1.94)]


def slower(into: Path, trial: Trial) -> Trial:
    """The device as it is when the trial in the folder `into` runs."""
    slow = "drift" in into.parts or int(into.parts[-2]) >= SLOW_FROM
    if not slow or trial.val_bpb is None:
        return dataclasses.replace(trial, tokens_per_second=FAST)
    return dataclasses.replace(trial, tokens_per_second=SLOW, val_bpb=trial.val_bpb + WORSE)


def drifted(root: Path, **engine: Any) -> tuple[Campaign, ScriptedEngine, list[Any]]:
    ran, seen = ScriptedEngine(record=slower, **engine), list[Any]()
    campaign = a_campaign(root, engine=ran)
    campaign.run(ScriptedAgent(TEXTS), on_event=seen.append)
    return campaign, ran, seen


def test_baseline_and_champion_are_measured_again_and_the_branch_stays(tmp_path: Path) -> None:
    campaign, ran, seen = drifted(tmp_path / "c")
    with campaign:
        (event,) = events_of(events.Drifted, seen)  # once: after it the new speed is the reference
        assert (event.moved.before, event.moved.now, event.trials) == (FAST, SLOW, 4)
        assert "changed by -20% (20K -> 16K tokens/s): baseline and champion are measured again" in _drifted(event)
        rows = campaign.ledger.measurements("drift")
        assert [(one.series, one.role, one.experiment, one.trial.seed) for one in rows] == [
            (7, "baseline", 0, 1), (7, "champion", 1, 1), (7, "champion", 1, 2), (7, "baseline", 0, 2),
        ]  # fmt: skip
        assert ran.ran[9:13] == [(2.0, 1), (1.8, 1), (1.8, 2), (2.0, 2)]
        found = campaign.experiments()
        # 1.78 + 0.04 is no better than the champion's 1.80 of the morning, and better than what it does now: 1.84.
        assert [e.champion_bpb for e in found[2:8]] == [1.80] * 6
        assert found[8].champion_bpb == pytest.approx(1.84)
        assert (found[8].verdict, found[8].parent) == ("keep", found[1].commit)
        assert found[8].gain == pytest.approx(0.02)
        # Whoever is kept after it has scores of its own.
        assert [e.champion_bpb for e in found[9:]] == [pytest.approx(1.82)] * 3
        notice = next(event.text for event in events_of(events.Notice, seen))
        assert notice.startswith("measured again: the champion 1.8000 -> 1.8400, the spread of seeds 0.0100 -> 0.0100")
        assert campaign.champion.number == 8
        assert all(trial.test_bpb is None for trial in (one.trial for one in rows))


def test_the_last_experiment_before_it_counts_for_no_later_one(tmp_path: Path) -> None:
    """The device is slow for experiments 5 to 7, fast when it is measured again, and slow for two more: no move."""

    def swinging(into: Path, trial: Trial) -> Trial:
        slow = "drift" not in into.parts and 5 <= int(into.parts[-2]) <= 9
        return dataclasses.replace(trial, tokens_per_second=SLOW if slow else FAST)

    seen: list[Any] = []
    with a_campaign(tmp_path / "c", engine=ScriptedEngine(record=swinging)) as campaign:
        campaign.run(ScriptedAgent(TEXTS), on_event=seen.append)
        assert [one.series for one in campaign.ledger.measurements("drift")] == [7] * 4
    assert len(events_of(events.Drifted, seen)) == 1


def test_its_seconds_are_no_experiments(tmp_path: Path) -> None:
    import time

    def during(spec: TrialSpec) -> None:
        if "drift" in spec.into.parts:
            time.sleep(0.3)

    campaign, _, _ = drifted(tmp_path / "c", during=during)
    with campaign:
        found = campaign.experiments()
        assert found[8].wall_seconds < 4 * 0.3


def test_cut_off_runs_measure_the_same(tmp_path: Path) -> None:
    whole, _, _ = drifted(tmp_path / "whole")
    a_campaign(tmp_path / "parts").close()
    seen: list[Any] = []

    begun: list[int] = []

    def interrupt(spec: TrialSpec) -> None:
        """Of those trials each run gets one done."""
        if "drift" in spec.into.parts:
            begun[-1] += 1
            if begun[-1] == 2:
                raise KeyboardInterrupt

    agent = ScriptedAgent(TEXTS)
    for most in [2, 3, 1, 0, None, None, 0, None, 1, None]:
        begun.append(0)
        engine = ScriptedEngine(record=slower, during=interrupt)
        with Campaign.open(tmp_path / "parts", engine=engine) as campaign:
            try:
                campaign.run(agent, experiments=most, on_event=seen.append)
            except KeyboardInterrupt:
                continue
    with whole, Campaign.open(tmp_path / "parts") as parts:
        told = [[(e.verdict, e.champion_bpb, e.spread) for e in one.experiments()] for one in (whole, parts)]
        assert told[0] == told[1]
        rows = [
            [(one.series, one.role, one.trial.seed, one.trial.val_bpb) for one in each.ledger.measurements("drift")]
            for each in (whole, parts)
        ]
        assert rows[0] == rows[1]
    drifts = events_of(events.Drifted, seen)
    assert [event.moved is None for event in drifts] == [False, True, True, True]
    assert begun == [0, 0, 0, 0, 2, 2, 0, 2, 1, 0]


def test_a_side_that_fails_leaves_its_old_score(tmp_path: Path) -> None:
    fails: dict[str, Any] = {"verdict": "crash", "val_bpb": None, "reason": "no luck"}

    def broken(into: Path, trial: Trial) -> Trial:
        if into.name in ("champion-1", "baseline-2") and "drift" in into.parts:
            return dataclasses.replace(trial, **fails)
        return slower(into, trial)

    seen: list[Any] = []
    with a_campaign(tmp_path / "c", engine=ScriptedEngine(record=broken)) as campaign:
        campaign.run(ScriptedAgent(TEXTS), on_event=seen.append)
        found = campaign.experiments()
        assert (found[8].champion_bpb, found[8].spread) == (1.80, found[0].spread)
        assert found[8].verdict == "discard"
        notice = next(event.text for event in events_of(events.Notice, seen))
        assert "the champion failed with seed 1 (no luck), so its old score holds" in notice


def test_a_champion_that_is_the_baseline_is_measured_once(tmp_path: Path) -> None:
    texts = [trainer(2.1 + n / 100) for n in range(9)]
    with a_campaign(tmp_path / "c", engine=ScriptedEngine(record=slower)) as campaign:
        campaign.run(ScriptedAgent(texts))
        assert [one.role for one in campaign.ledger.measurements("drift")] == ["baseline", "baseline"]
        assert campaign.experiment(8).champion_bpb == pytest.approx(2.04)


def test_a_device_that_swings_is_measured_at_most_every_third_experiment(tmp_path: Path) -> None:
    """Alternating for ever: no loop, and a bounded share of the night."""
    trials: list[Trial] = []

    def swinging(into: Path, trial: Trial) -> Trial:
        trials.append(trial)
        return dataclasses.replace(trial, tokens_per_second=FAST if len(trials) // 6 % 2 else SLOW)

    texts = [trainer(2.1 + n / 100) for n in range(40)]
    seen: list[Any] = []
    with a_campaign(tmp_path / "c", engine=ScriptedEngine(record=swinging)) as campaign:
        campaign.run(ScriptedAgent(texts), on_event=seen.append)
        assert campaign.status().experiments == 40
    assert 1 <= len(events_of(events.Drifted, seen)) <= 13


def test_an_unreadable_change_of_yardstick_is_refused_there_too(tmp_path: Path) -> None:
    def other(into: Path, trial: Trial) -> Trial:
        changed = slower(into, trial)
        return dataclasses.replace(changed, yardstick="b" * 64) if "drift" in into.parts else changed

    with a_campaign(tmp_path / "c", engine=ScriptedEngine(record=other)) as campaign:
        with pytest.raises(UserError, match="different yardsticks can't be compared: .* go on with"):
            campaign.run(ScriptedAgent(TEXTS))
        assert campaign.ledger.measurements("drift") == []


# The judge's part


def measured(role: Any, number: int, seed: int, bpb: float | None) -> Measurement:
    trial = a_trial(seed=seed, val_bpb=bpb, verdict="crash" if bpb is None else "scored")
    return Measurement(purpose="drift", series=9, role=role, experiment=number, commit="c", trial=trial)


def an_experiment(number: int, *scores: float) -> Experiment:
    trials = tuple(a_trial(val_bpb=score, seed=seed) for seed, score in enumerate(scores, 1))
    return Experiment(
        number=number, commit="c", parent="c", hypothesis="", agent="", verdict="keep", reason="", val_bpb=scores[0],
        champion_bpb=None, spread=0.01, fingerprint="f", wall_seconds=1.0, train_seconds=1.0, ended="", trials=trials,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("again", "held_against", "spread"),
    [
        ((), 1.5, 0.01),
        ((measured("champion", 4, 1, 1.6),), 1.6, 0.01),
        ((measured("champion", 4, 2, 1.6),), 1.5, 0.01),  # another seed
        ((measured("champion", 3, 1, 1.6),), 1.5, 0.01),  # the champion before it
        ((measured("champion", 4, 1, None),), 1.5, 0.01),
        ((measured("baseline", 0, 1, 2.0), measured("baseline", 0, 2, 2.03)), 1.5, 0.03),
        ((measured("baseline", 0, 1, 2.0), measured("baseline", 0, 2, None)), 1.5, 0.01),
    ],
)
def test_the_newest_score_on_the_same_seed_counts(
    again: tuple[Measurement, ...], held_against: float, spread: float
) -> None:
    evidence = Evidence(
        seeds=(1, 2), trials=(a_trial(val_bpb=1.55),), champion=an_experiment(4, 1.5),
        baseline=an_experiment(0, 2.0, 2.01), remeasured=again,
    )  # fmt: skip
    assert champion_bpb(evidence, 1) == held_against
    assert spread_of_seeds(evidence) == pytest.approx(spread)
    answer = LowerWins().decide(evidence)
    assert isinstance(answer, Decision)
    assert answer.verdict == ("keep" if held_against > 1.55 else "discard")
    assert (answer.champion_bpb, answer.spread) == (held_against, pytest.approx(spread))


def test_another_yardstick_in_a_re_measurement_is_an_error() -> None:
    other = measured("champion", 4, 1, 1.6)
    other = dataclasses.replace(other, trial=dataclasses.replace(other.trial, yardstick="f" * 64))
    base = an_experiment(4, 1.5)
    with pytest.raises(UserError, match="different yardsticks"):
        LowerWins().decide(
            Evidence(seeds=(1,), trials=(a_trial(),), champion=base, baseline=base, remeasured=(other,))
        )  # fmt: skip
