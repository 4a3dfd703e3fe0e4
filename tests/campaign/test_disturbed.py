"""Trials that other load slowed: which are evidence, what runs again, and what a night of them costs."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from campaigns import ScriptedAgent, ScriptedEngine, a_campaign, a_trial, events_of, trainer
from hypothesis import given
from hypothesis import strategies as st

from core import events
from core.campaign.judge.base import AnotherTrial, Decision, Evidence, Reign
from core.campaign.judge.belief import Belief
from core.campaign.judge.disturbed import MOST_WASTED, Likeness, Pace, cause, settled
from core.records import Experiment, Trial

SEEDS = (1, 2, 3)
SLOPE = 0.16  # bits per byte for a factor of e in speed, as in the demo's trials of 8 s


def at(minute: int, load: float | None = 0.0, speed: float = 20_000.0, **values: Any) -> Trial:
    """A trial that started in that minute beside that load."""
    conditions = {} if load is None else {"other_load": load, "stolen": 0.0}
    started = f"2026-01-01T{minute // 60:02}:{minute % 60:02}:00.000+00:00"
    return a_trial(
        **{"conditions": conditions, "started": started, "tokens_per_second": speed, "train_seconds": 8.0, **values}
    )


def an_experiment(number: int, *trials: Trial) -> Experiment:
    return Experiment(
        number=number, commit=f"c{number}", parent="c", hypothesis="", agent="", verdict="keep", reason="",
        val_bpb=trials[0].val_bpb, champion_bpb=None, spread=0.01, fingerprint="f", wall_seconds=1.0, train_seconds=1.0,
        ended="", trials=trials,
    )  # fmt: skip


QUIET = an_experiment(0, at(0, seed=1), at(1, seed=2), at(2, seed=3))


def evidence(
    *trials: Trial, champion: Experiment | None = QUIET, again: Sequence[Trial] = (), kept: Sequence[Reign] = ()
) -> Evidence:
    lineage = () if champion is None else (*kept, Reign(experiment=champion, again=tuple(again)))
    baseline = lineage[0] if lineage else None
    return Evidence(
        seeds=SEEDS, trials=trials, champion=champion, lineage=lineage,
        baseline=baseline.experiment if baseline else None,
        baseline_again=baseline.again if baseline else (),
    )  # fmt: skip


def parts(answer: Any) -> tuple[tuple[Trial, ...], tuple[Trial, ...]]:
    """The candidate's and the champion's trials of evidence that is settled."""
    assert isinstance(answer, Evidence), answer
    assert answer.champion == answer.lineage[-1].experiment
    return answer.trials, answer.lineage[-1].trials


def asked(answer: Any) -> tuple[str, int]:
    assert isinstance(answer, AnotherTrial), answer
    assert answer.why
    return answer.of, answer.seed


# What runs again


def test_a_quiet_machine_spends_nothing() -> None:
    whole = evidence(at(10), at(11, seed=2), again=(at(12),))
    assert settled(whole) == whole
    assert settled(evidence()) == evidence()
    first = evidence(at(0), champion=None)
    assert settled(first) == first


@pytest.mark.parametrize(
    ("trial", "why"),
    [
        (at(10, 0.48, 11_000), "other processes took 48% of the device, and 0% before"),
        (at(10, 0.0, 16_000), "the speed is 80% of what it was, and nothing else shows why"),
        (at(10, 0.48, rows=8), "other processes took 48% of the device"),
        (at(10, rows=8, stalled_seconds=2.0), "steps stalled for 25% of the training time"),
        (at(10, rows=8, conditions={"throttled": 0.5}), "throttled in 50% of the samples"),
        (at(10, 0.48, rows=8, verdict="crash", val_bpb=None, tokens_per_second=None), "the trial failed, and other"),
    ],
)
def test_a_slowed_trial_runs_again_with_its_seed(trial: Trial, why: str) -> None:
    reference = dataclasses.replace(
        QUIET.trials[0], stalled_seconds=0.1, conditions={"other_load": 0.0, "throttled": 0.0}
    )
    answer = settled(evidence(trial, champion=an_experiment(0, reference)))
    assert asked(answer) == ("candidate", 1)
    assert isinstance(answer, AnotherTrial)
    assert why in answer.why


def test_what_repeats_beside_the_same_load_has_the_champion_beside_it_too() -> None:
    busy = at(10, 0.5, 11_000), at(11, 0.46, 12_000)
    assert asked(settled(evidence(*busy))) == ("champion", 1)
    again = (at(12, 0.5, 11_500),)
    assert parts(settled(evidence(*busy, again=again))) == (busy, again)  # the quiet ones are no evidence here
    # The next candidate finds them both: it costs nothing any more, in whichever of the two states the machine is.
    for trial in (at(20, 0.52, rows=8), at(20, 0.0, rows=8)):
        assert isinstance(settled(evidence(trial, again=again)), Evidence)


def test_a_trial_that_was_stopped_beside_a_champion_of_another_pace_runs_again() -> None:
    stopped = [at(minute, 0.5, 11_000, verdict="stopped", val_bpb=None) for minute in (10, 11)]
    again = (at(12, 0.5, 11_500),)
    assert asked(settled(evidence(*stopped, again=again))) == ("candidate", 1)
    scored = at(13, 0.5, 11_000)
    assert parts(settled(evidence(*stopped, scored, again=again))) == ((scored,), again)
    # Stopped beside that champion as well: it could not have won.
    anew = at(13, 0.5, 11_000, verdict="stopped", val_bpb=None)
    assert parts(settled(evidence(*stopped, anew, again=again))) == ((anew,), again)
    quiet = at(10, verdict="stopped", val_bpb=None)
    assert parts(settled(evidence(quiet)))[0] == (quiet,)


def test_a_champion_of_a_busy_time_runs_again_before_a_quiet_trial_is_held_against_it() -> None:
    busy = an_experiment(0, at(0, 0.5, 11_000), at(1, 0.5, 11_200, seed=2), at(2, 0.5, 11_100, seed=3))
    trial = at(10, 0.01, rows=8)
    assert asked(settled(evidence(trial, champion=busy))) == ("champion", 1)
    again = (at(11, 0.0, 20_000),)
    assert parts(settled(evidence(trial, champion=busy, again=again))) == ((trial,), again)


def test_a_baseline_beside_load_runs_again_once() -> None:
    first, second = at(0, 0.5, 11_000), at(1, 0.48, 11_500)
    assert asked(settled(evidence(first, champion=None))) == ("candidate", 1)
    # A machine that is busy all night works, too.
    sustained = settled(evidence(first, second, champion=None))
    assert isinstance(sustained, Evidence)
    assert sustained.trials == (first, second)
    quiet = settled(evidence(first, at(1), champion=None))
    assert isinstance(quiet, Evidence)
    assert quiet.trials == (at(1),)


def test_a_trainer_that_is_slow_by_itself_is_accused_once() -> None:
    slow = at(10, 0.0, 15_000), at(11, 0.0, 15_200)
    assert asked(settled(evidence(slow[0]))) == ("candidate", 1)
    assert asked(settled(evidence(*slow))) == ("champion", 1)
    again = (at(12, 0.0, 19_900),)
    assert parts(settled(evidence(*slow, again=again))) == (slow, (*QUIET.trials, *again))
    # With another seed, too; and the next champion made with it is its own reference.
    assert isinstance(settled(evidence(*slow, at(13, 0.0, 15_100, seed=2), again=again)), Evidence)
    assert isinstance(settled(evidence(at(20, 0.0, 15_000), champion=an_experiment(1, *slow))), Evidence)


def test_a_device_that_got_slower_is_no_fault_of_a_trainer() -> None:
    """A laptop that went on battery: the champion is as slow now."""
    slow = at(10, 0.0, 15_000), at(11, 0.0, 15_200)
    again = (at(12, 0.0, 15_100),)
    assert parts(settled(evidence(*slow, again=again))) == (slow, again)


def test_a_trainer_that_is_fast_by_itself_costs_the_champion_one_trial() -> None:
    fast = at(10, 0.0, 26_000)
    assert asked(settled(evidence(fast))) == ("champion", 1)
    again = (at(11, 0.0, 20_200),)
    assert parts(settled(evidence(fast, again=again))) == ((fast,), (*QUIET.trials, *again))


def test_a_load_that_costs_nothing_is_none() -> None:
    """Other processes on a GPU's host, or on processors that a trial does not use."""
    assert isinstance(settled(evidence(at(10, 0.5, 19_800))), Evidence)
    host = {"other_load": 0.0, "host_other_load": 0.9}
    assert isinstance(settled(evidence(at(10, conditions=host, rows=8))), Evidence)
    assert cause(at(10, 0.5, 19_800), QUIET.trials) == ""
    assert cause(at(10, conditions=host, rows=8), QUIET.trials) == ""


def test_another_device_is_never_compared() -> None:
    """A campaign's folder that moved to another machine."""
    other = at(10, device="cpu (another)")
    answer = settled(evidence(other))
    assert asked(answer) == ("champion", 1)
    again = (at(11, device="cpu (another)"),)
    assert parts(settled(evidence(other, again=again))) == ((other,), again)


def test_what_is_unknown_accuses_nobody() -> None:
    assert isinstance(settled(evidence(at(10, None, rows=8))), Evidence)
    unknown = an_experiment(0, at(0, None), at(1, None, seed=2))
    assert isinstance(settled(evidence(at(10, 0.5, rows=8), champion=unknown)), Evidence)


def test_a_failure_that_repeats_counts() -> None:
    failed: dict[str, Any] = {"verdict": "crash", "val_bpb": None, "tokens_per_second": None, "rows": 8}
    twice = evidence(at(10, 0.5, **failed), at(11, 0.5, **failed))
    found = settled(twice)
    assert isinstance(found, Evidence)
    assert found.trials[-1].verdict == "crash"
    # One that is no fault of the load counts at once.
    assert isinstance(settled(evidence(at(10, **failed))), Evidence)


def test_a_machine_that_never_holds_still_ends_in_a_verdict_that_may_be_proposed_again() -> None:
    loads = [0.3, 0.6, 0.85, 0.3, 0.95]
    found = settled(evidence(*(at(10 + n, load, 20_000 * (1 - load), rows=8) for n, load in enumerate(loads))))
    assert isinstance(found, Decision)
    assert (found.verdict, found.val_bpb) == ("invalid", None)
    assert "disturbed in each of 5 trials" in found.reason


def test_scatter_of_repeats_widens_what_is_alike() -> None:
    rough = an_experiment(0, *(at(n, 0.0, speed, seed=n + 1) for n, speed in enumerate((24_000, 28_000, 25_000))))
    found = settled(evidence(at(10, 0.0, 20_500), champion=rough))
    assert isinstance(found, Evidence)
    assert asked(settled(evidence(at(10, 0.0, 17_600)))) == ("candidate", 1)


def test_the_cause_is_named() -> None:
    assert cause(at(10, 0.48, 11_000), QUIET.trials) == "other processes took 48% of the device"
    assert cause(at(10, 0.0, 15_000), QUIET.trials) == "75% of the speed of earlier trials whose step costs the same"
    stalled = at(10, rows=8, stalled_seconds=2.0)
    assert cause(stalled) == "2.0 s of 8.0 s went into steps that took three times as long as the others"
    assert cause(at(10), QUIET.trials) == cause(at(10, None)) == cause(at(10, 0.0, 40_000), QUIET.trials) == ""


loads = st.none() | st.floats(0.0, 1.0)
trials_anyhow = st.builds(
    at, st.integers(0, 59), loads, st.floats(1.0, 1e6), rows=st.sampled_from([8, 16]), seed=st.sampled_from(SEEDS),
    verdict=st.sampled_from(["scored", "scored", "stopped", "crash"]), stalled_seconds=st.none() | st.floats(0.0, 8.0),
)  # fmt: skip


@given(trials_anyhow, trials_anyhow, st.floats(0.08, 0.4))
def test_likeness_is_mutual(one: Trial, other: Trial, band: float) -> None:
    like = Likeness(band)
    assert like.alike(one, one)
    assert like.alike(one, other) == like.alike(other, one)


@given(st.lists(trials_anyhow, max_size=6), st.lists(trials_anyhow, max_size=5), st.lists(trials_anyhow, min_size=1))
def test_any_evidence_gets_an_answer(ran: list[Trial], again: list[Trial], before: list[Trial]) -> None:
    """Of trials as they can't come, too: nothing raises, and what is settled is a part of what was there."""
    for champion in (None, an_experiment(0, *before)):
        whole = evidence(*ran, champion=champion, again=again)
        found = settled(whole)
        assert found == settled(whole)
        if isinstance(found, Evidence):
            assert all(trial in ran for trial in found.trials)
            assert bool(found.trials) == bool(ran)
        elif isinstance(found, Decision):
            assert champion is not None
            assert len(ran) + len(again) >= MOST_WASTED


# Whole nights


@dataclass(frozen=True)
class Trainer:
    rows: int
    bpb: float  # with the whole machine
    speed: float = 1.0  # relative


@dataclass
class Night:
    """A machine with a load for each trial in turn, and a judge that decides on the first seed."""

    load: Callable[[int], float]
    pace: Callable[[int], float] = lambda minute: 1.0  # what no counter shows
    scatter: float = 0.015
    random: random.Random = field(default_factory=lambda: random.Random(7))
    left: dict[str, float] = field(default_factory=dict)  # of the machine, by when a trial started
    extra: list[int] = field(default_factory=list)  # trials of each experiment that a still machine would not need
    apart: list[float] = field(default_factory=list)  # of each verdict's trials: how unlike the machine was (logarithm)

    def trial(self, trainer: Trainer, seed: int) -> Trial:
        minute = len(self.left)
        load = self.load(minute)
        left = (1 - load) * self.pace(minute)
        speed = 20_000 * trainer.speed * left * math.exp(self.random.gauss(0, self.scatter * (1 + 4 * load)))
        noise = self.random.gauss(0, 0.003)
        score = trainer.bpb - SLOPE * math.log(left) + noise
        seen = min(1.0, load + abs(self.random.gauss(0, 0.01)))
        ran = at(minute, seen, speed, seed=seed, rows=trainer.rows, val_bpb=score, stalled_seconds=0.0)
        self.left[ran.started] = left
        return ran

    def baseline(self, trainer: Trainer) -> Experiment:
        trials: list[Trial] = []
        while True:
            answer = settled(evidence(*trials, champion=None))
            if isinstance(answer, Evidence):
                missing = [seed for seed in SEEDS if seed not in {trial.seed for trial in answer.trials}]
                if not missing:
                    self.extra.append(len(trials) - len(SEEDS))
                    return an_experiment(0, *trials)
                answer = AnotherTrial(missing[0])
            assert isinstance(answer, AnotherTrial)
            trials.append(self.trial(trainer, answer.seed))

    def judge(self, number: int, trainer: Trainer, champion: Trainer, kept: list[Reign]) -> Reign | None:
        """The candidate's reign if it is kept. The champion's new trials go to the last of those that were kept."""
        trials, before = [self.trial(trainer, 1)], len(kept[-1].again)
        while True:
            answer = settled(
                Evidence(
                    seeds=SEEDS,
                    trials=tuple(trials),
                    champion=kept[-1].experiment,
                    baseline=kept[0].experiment,
                    baseline_again=kept[0].again,
                    lineage=tuple(kept),
                )
            )
            if not isinstance(answer, AnotherTrial):
                self.extra.append(len(trials) - 1 + len(kept[-1].again) - before)
                won = isinstance(answer, Evidence) and self.wins(answer)
                return Reign(experiment=an_experiment(number, *trials)) if won else None
            if answer.of == "candidate":
                trials.append(self.trial(trainer, answer.seed))
            else:
                again = (*kept[-1].again, self.trial(champion, answer.seed))
                kept[-1] = dataclasses.replace(kept[-1], again=again)

    def wins(self, answer: Evidence) -> bool:
        left = [self.left[trial.started] for reign in answer.lineage for trial in (*answer.trials, *reign.trials)]
        self.apart.append(math.log(max(left) / min(left)))

        def mean(trials: Sequence[Trial]) -> float:
            return sum(trial.val_bpb or 0.0 for trial in trials) / len(trials)

        return mean(answer.lineage[-1].trials) - mean(answer.trials) > 0.015

    def run(self, proposals: Sequence[Trainer]) -> list[int]:
        """The numbers of those that are kept."""
        best = Trainer(16, 2.0)
        kept = [Reign(experiment=self.baseline(best))]
        for number, proposal in enumerate(proposals, 1):
            reign = self.judge(number, proposal, best, kept)
            if reign is not None:
                kept.append(reign)
                best = proposal
        return [reign.experiment.number for reign in kept[1:]]


GOOD = [2, 7, 20]
NUMBERS = range(1, 31)
PROPOSALS = [
    Trainer(
        (16, 16, 8, 12)[number % 4], 2.0 - 0.05 * sum(good <= number for good in GOOD) + 0.06 * (number not in GOOD)
    )
    for number in NUMBERS
]


def _now_and_then(minute: int) -> float:
    return random.Random(minute).choice([0.0, 0.0, 0.0, 0.5])


@pytest.mark.parametrize(
    ("load", "most_extra"),
    [
        pytest.param(lambda minute: 0.0, 0, id="quiet"),
        pytest.param(lambda minute: 0.5, 1, id="busy all night"),
        pytest.param(lambda minute: 0.5 * (minute < 2), 3, id="busy for a part of the baseline"),
        pytest.param(lambda minute: 0.5 * (minute < 8), 3, id="busy for a while at first"),
        pytest.param(lambda minute: 0.5 * (minute >= 15), 4, id="busy from then on"),
        pytest.param(lambda minute: 0.5 * (minute in (7, 20, 21, 30)), 8, id="bursts"),
        pytest.param(lambda minute: 0.5 * (minute % 2), 30, id="every other trial"),
        pytest.param(lambda minute: 0.5 * (minute // 3 % 2), 12, id="every three trials"),
        pytest.param(lambda minute: min(0.6, 0.015 * minute), 16, id="more and more"),
        pytest.param(_now_and_then, 12, id="now and then"),
    ],
)
def test_a_night_ends_with_the_verdicts_of_a_quiet_one(load: Callable[[int], float], most_extra: int) -> None:
    night = Night(load)
    assert night.run(PROPOSALS) == GOOD
    assert sum(night.extra) <= most_extra
    assert max(night.apart) < 0.3


@pytest.mark.parametrize(("before", "after"), [(1.0, 0.85), (0.8, 1.0)])
def test_a_change_of_speed_that_no_counter_shows_is_found_by_the_speed(before: float, after: float) -> None:
    night = Night(lambda minute: 0.0, lambda minute: before if minute < 12 else after)
    assert night.run([dataclasses.replace(one, rows=16) for one in PROPOSALS]) == GOOD
    assert sum(night.extra) <= 3
    assert max(night.apart) == 0.0


@given(st.lists(st.sampled_from([0.0, 0.0, 0.2, 0.5, 0.8, 0.95]), min_size=1, max_size=11))
def test_no_night_costs_more_than_a_few_trials_an_experiment(loads: list[float]) -> None:
    night = Night(lambda minute: loads[minute % len(loads)])
    night.run(PROPOSALS[:6])
    assert max(night.extra) <= 2 * MOST_WASTED
    assert max(night.extra[1:]) <= MOST_WASTED + 1


def test_pace_reads_a_record() -> None:
    pace = Pace.of(at(0, 0.3, conditions={"other_load": 0.3, "stolen": 0.4, "throttled": "?"}, stalled_seconds=1.0))
    assert (pace.load, pace.throttled, pace.stalled, pace.loaded) == (0.4, None, 0.125, True)


# Campaigns


@pytest.mark.parametrize("busy", [2, 3, 6])
def test_a_campaign_that_was_disturbed_at_first_ends_as_one_that_never_was(tmp_path: Path, busy: int) -> None:
    """12 proposals, three of them good; the first trials run beside a process that takes half of the device."""
    scores = {number: 2.0 - 0.1 * sum(good <= number for good in (3, 6, 10)) for number in range(1, 13)}
    texts = [trainer(score + (0.15 + number / 1000) * (number not in (3, 6, 10))) for number, score in scores.items()]
    ran: list[Path] = []

    def beside(count: int) -> Callable[[Path, Trial], Trial]:
        def slowed(into: Path, trial: Trial) -> Trial:
            ran.append(into)
            load = 0.5 if len(ran) <= count else 0.01
            slower = at(len(ran), load, 20_000 * (1 - load))
            return dataclasses.replace(
                trial, conditions=slower.conditions, started=slower.started, train_seconds=8.0,
                tokens_per_second=slower.tokens_per_second, val_bpb=(trial.val_bpb or 0.0) - SLOPE * math.log(1 - load),
            )  # fmt: skip

        return slowed

    verdicts = {}
    for count in (0, busy):
        ran.clear()
        engine = ScriptedEngine(record=beside(count))
        seen: list[Any] = []
        with a_campaign(tmp_path / str(count), engine=engine, policy=Belief()) as campaign:
            campaign.run(ScriptedAgent(texts), on_event=seen.append)
            verdicts[count] = [e.verdict for e in campaign.experiments()]
            disturbed = campaign.ledger.disturbed()
            assert len(disturbed) == count
            assert all(one.reason == "other processes took 50% of the device" for one in disturbed)
            assert campaign.status().disturbed_trials == disturbed
            if count:
                told = [event.text for event in events_of(events.Notice, seen)]
                assert any("other processes took 50% of the device" in text for text in told)
                assert len(told) < 6
            kept = [e for e in campaign.experiments() if e.verdict == "keep"]
            assert kept[-1].val_bpb == pytest.approx(1.7, abs=0.03)
    assert verdicts[busy] == verdicts[0]
    assert [number for number, verdict in enumerate(verdicts[0]) if verdict == "keep"] == [0, 3, 6, 10]


def test_brief_trials_accuse_nobody() -> None:
    """In a second or less, what else ran is read too coarsely."""
    brief = a_trial(train_seconds=1.0, conditions={"other_load": 0.9}, tokens_per_second=10.0, stalled_seconds=0.5)
    pace = Pace.of(brief)
    assert (pace.load, pace.speed, pace.stalled) == (None, None, None)
    longer = Pace.of(dataclasses.replace(brief, train_seconds=10.0))
    assert (longer.load, longer.speed) == (0.9, 10.0)
