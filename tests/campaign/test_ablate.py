"""`autoresearch ablate`: what is left out, in which order, what the trials say, and the smaller champion's verdict."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from campaigns import ScriptedAgent, ScriptedEngine, Steps, a_campaign, a_trial, events_of, trainer
from command import call
from support import reference_trainer
from view_records import an_experiment

import presets
from core import events
from core.campaign import ablate
from core.campaign.ablate import LeftOut, Pairs
from core.campaign.campaign import Campaign
from core.campaign.judge.base import AnotherTrial, Decision, Evidence
from core.campaign.judge.greedy import LowerWins
from core.records import Measurement, Trial, UserError
from core.trainer.constants import read_constants, write_constants
from core.trial.spec import TrialSpec

CHAMPION = an_experiment(9, "keep", val_bpb=1.8)
ALL = frozenset({1, 2, 3, 4})


def left_out(number: int, gain: float) -> LeftOut:
    kept = an_experiment(number, "keep", val_bpb=1.8, champion_bpb=1.8 + gain, spread=0.01)
    return LeftOut(experiment=kept, text=trainer(1.8 + gain))


def measured(role: str, seed: int, bpb: float | None, **values: Any) -> Measurement:
    values = {
        "verdict": "scored" if bpb is not None else "crash",
        "reason": "" if bpb is not None else "no luck",
    } | values
    trial = a_trial(seed=seed, val_bpb=bpb, **values)
    return Measurement(purpose="ablate", series=9, role=role, experiment=9, commit=CHAMPION.commit, trial=trial)


def pairs(*contributions: Sequence[float]) -> list[Measurement]:
    """The champion with each seed from 3 on, and it without change 1, 2, ..."""
    seeds = range(3, 3 + max(map(len, contributions)))
    found = [measured("champion", seed, 1.8 + seed / 100) for seed in seeds]
    for number, values in enumerate(contributions, 1):
        found += [
            measured(f"without {number}", seed, 1.8 + seed / 100 + value)
            for seed, value in zip(seeds, values, strict=False)
        ]
    return found


# What the trials say


def test_the_noise_is_that_of_all_pairs_and_each_change_has_its_interval() -> None:
    recorded = pairs((0.10, 0.12, 0.11), (0.001, -0.001, 0.0), (-0.05, -0.06, -0.055))
    found = Pairs(recorded)
    assert (found.noise, found.freedom) == (pytest.approx((0.0002 + 0.000002 + 0.00005) ** 0.5 / 6**0.5), 6)
    interval = found.interval("without 3")
    assert interval is not None
    assert interval.half_width == pytest.approx(2.4469 * found.noise / 3**0.5, rel=1e-4)
    assert [found.finding(f"without {number}") for number in (1, 2, 3)] == ["helps", "noise", "hurts"]


def test_a_change_that_scatters_more_has_a_wider_interval_and_one_that_moves_nothing_is_noise() -> None:
    found = Pairs(pairs((1e-5, 1.1e-5, 1e-5), (0.004, 0.012, 0.008), (0.1,)))
    assert found.noise < 0.003
    interval = found.interval("without 2")
    assert interval is not None and interval.half_width == pytest.approx(2.7764 * 0.004 / 3**0.5, rel=1e-4)
    assert [found.finding(f"without {number}") for number in (1, 2, 3)] == ["noise", "helps", "undecided"]


def test_of_one_pair_each_nothing_is_known_and_a_failure_is_a_need() -> None:
    recorded = [*pairs((0.1,), (0.0,)), measured("without 3", 3, None)]
    found = ablate.conclude([left_out(n, 0.1) for n in (1, 2, 3)], CHAMPION, trainer(1.8), recorded, 0)
    assert [change.finding for change in found.changes] == ["undecided", "undecided", "needed"]
    assert found.changes[0].why == "contributes 0.1000 on one seed"
    assert found.changes[2].why == "without it the trainer fails: crash: no luck"
    assert (found.noise, found.smaller) == (None, None)


def test_a_seed_on_which_the_champion_failed_makes_no_pair() -> None:
    recorded = [*pairs((0.1, 0.1)), measured("champion", 5, None), measured("without 1", 5, 1.9)]
    found = ablate.conclude([left_out(1, 0.1)], CHAMPION, trainer(1.8), recorded, 0)
    assert (found.changes[0].pairs, found.failed) == (2, ("champion, seed 5: crash: no luck",))


# Which trials, and in which order


def order(recorded: Sequence[Measurement], *gains: float, seeds: Sequence[int] = (3, 4, 5)) -> list[tuple[str, int]]:
    candidates = [left_out(number, gain) for number, gain in enumerate(gains, 1)]
    return [(one.role, one.seed) for one in ablate.next_trials(candidates, CHAMPION, recorded, seeds)]


def test_what_may_be_luck_runs_before_what_plainly_helped() -> None:
    planned = order([], 0.5, 0.001, 0.03)
    assert planned[:2] == [("champion", 3), ("without 2", 3)]
    assert len(planned) == len(set(planned)) == 3 + 3 * 3
    firsts = [role for role, seed in planned if role != "champion" and seed == 3]
    assert firsts == ["without 2", "without 3", "without 1"]


def test_a_decided_change_gets_no_more_trials() -> None:
    recorded = pairs((0.10, 0.10), (0.001, -0.001))
    planned = order(recorded, 0.1, 0.001)
    assert planned == [("champion", 5), ("without 2", 5)]
    assert order(pairs((0.10, 0.10, 0.10), (0.001, -0.001, 0.0)), 0.1, 0.001) == []


def test_a_seed_that_failed_on_a_side_is_not_run_for_ever() -> None:
    recorded = [measured("champion", 3, None)]
    assert ("without 1", 3) not in order(recorded, 0.1)
    assert order([*pairs((0.1,)), measured("without 1", 4, None)], 0.1) == []


def test_what_is_left_out_makes_the_trainer_smaller_or_better() -> None:
    sizes = {1: 0, 2: 7, 3: 4, 4: 12, 5: -3}
    recorded = pairs(
        (0.0, 0.001, -0.001), (0.0, 0.001, -0.001), (0.002, 0.0, 0.001), (0.1, 0.1, 0.1), (-0.1, -0.1, -0.1)
    )
    found = ablate.conclude([left_out(n, 0.1) for n in sizes], CHAMPION, trainer(1.8), recorded, 0)
    changes = [dataclasses.replace(change, nodes=sizes[change.experiment]) for change in found.changes]
    # 1 is no smaller; 3's contribution is not near enough to nothing; 4 helps; 5 hurts, whatever its size
    assert ablate.superfluous(changes) == [(2, 5), (5,), (2,)]


# Campaigns with scripted trials


class Sums(ScriptedEngine):
    """A trainer's score is its SCORE less the sum of its constants PART_..., which changes add."""

    def run_trial(self, spec: TrialSpec, *others: Any) -> Trial:
        constants = read_constants(spec.trainer)
        parts = sum(float(str(value)) for name, value in constants.items() if name.startswith("PART_"))
        text = write_constants(spec.trainer, {"SCORE": float(str(constants["SCORE"])) - parts})
        return super().run_trial(dataclasses.replace(spec, trainer=text), *others)


class KeepsAll(LowerWins):
    """Keeps whatever scored, so that a stack can be planted; then the lower score on the first seed."""

    name, version = "keeps-all", 1

    def __init__(self, first: int = 99) -> None:
        self.first = first

    def decide(self, evidence: Evidence) -> AnotherTrial | Decision:
        if not evidence.trials:
            return AnotherTrial(evidence.seeds[0])
        bpb, champion = evidence.trials[-1].val_bpb, evidence.champion
        assert bpb is not None
        return Decision(
            verdict="keep", reason="planted", val_bpb=bpb, spread=0.01,
            champion_bpb=None if champion is None else champion.val_bpb,
        )  # fmt: skip


START = trainer(2.0) + "\n\nPART_A = 0.0\nPART_B = 0.0\n\n\ndef other():\n    return 1\n"


def changed(text: str, *pairs: tuple[str, str]) -> str:
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    return text


FIRST = changed(START, ("PART_A = 0.0", "PART_A = 0.1"))
NO_OP = changed(FIRST, ("return 1\n", "return 1\n\n\ndef unused():\n    return [other() for _ in range(9)]\n"))
THIRD = changed(NO_OP, ("PART_B = 0.0", "PART_B = 0.05"))
FOURTH = changed(THIRD, ("    pass\n", "    print()\n\n\nPART_C = 0.02\n"))


def noisy(into: Path, trial: Trial) -> Trial:
    """Noise of a pair, by the folder alone, so that a trial that runs again comes to the same."""
    if "ablate" not in into.parts or trial.val_bpb is None:
        return trial
    wobble = {"c": 0.0, "w": 0.002}[into.name[0]] * ((trial.seed * 7919 + len(into.name)) % 3 - 1)
    return dataclasses.replace(trial, val_bpb=trial.val_bpb + wobble)


def grown(root: Path, texts: Sequence[str] = (FIRST, NO_OP, THIRD, FOURTH), **engine: Any) -> Campaign:
    ran = Sums(record=noisy, **engine)
    campaign = a_campaign(root, engine=ran, trainer=START, policy=KeepsAll())
    campaign.run(ScriptedAgent(list(texts)))
    assert campaign.champion.number == len(texts)
    return campaign


def test_the_planted_no_op_is_named_and_the_smaller_champion_judged(tmp_path: Path) -> None:
    seen: list[Any] = []
    with grown(tmp_path / "c") as campaign:
        found = campaign.ablate(3, on_event=seen.append)
        assert [(change.experiment, change.finding) for change in found.changes] == [
            (1, "helps"), (2, "noise"), (3, "helps"), (4, "helps"),
        ]  # fmt: skip
        for change, truth in zip(found.changes, (0.1, 0.0, 0.05, 0.02), strict=True):
            assert change.interval is not None
            assert abs(change.interval.mean - truth) <= change.interval.half_width
        assert found.left == 0 and found.smaller is not None and found.smaller.without == (2,)
        assert found.changes[1].nodes is not None and found.changes[1].nodes > 10
        assert "noise" not in found.conclusion and "can't be told from luck: 2" in found.conclusion
        plan = events_of(events.Notice, seen)[0].text
        assert plan.startswith("4 kept changes of experiment 4: 15 trials to run, about ")
        assert (len(campaign), campaign.champion.number) == (5, 4), "nothing was tried yet"
        again = campaign.ablate(3)
        assert again == found
        tried = campaign.ablate(3, propose=True)
        assert tried.smaller is not None
        assert (tried.smaller.experiment, tried.smaller.verdict) == (5, "keep")
        last = campaign.experiment(5)
        assert (last.agent, last.parent) == ("ablate", campaign.experiment(4).commit)
        assert last.hypothesis == "leave out experiment 2: no gain was found in it"
        assert campaign.champion_text == changed(
            FOURTH, ("\n\n\ndef unused():\n    return [other() for _ in range(9)]", "")
        )


def test_limits_cut_it_off_and_the_same_call_goes_on(tmp_path: Path) -> None:
    with grown(tmp_path / "whole") as whole, grown(tmp_path / "parts") as parts:
        seen: list[Any] = []
        first = parts.ablate(3, trials=4, on_event=seen.append)
        assert (first.trials, first.left > 0) == (4, True)
        assert "the limit came first: 11 trials are left" in events_of(events.Notice, seen)[-1].text
        assert [event.count for event in events_of(events.Measuring, seen)] == [4] * 4
        assert parts.ablate(3, hours=0).trials == 4

        def interrupt(spec: TrialSpec) -> None:
            if len(engine.ran) % 3 == 0:
                raise KeyboardInterrupt

        engine: Any = parts._engine
        engine.during = interrupt
        for _ in range(9):
            try:
                engine.ran.append((0.0, 0))
                parts.ablate(3)
            except KeyboardInterrupt:
                continue
        assert parts.ablate(3).changes == whole.ablate(3).changes


def test_what_cant_go_alone_is_said(tmp_path: Path) -> None:
    again = changed(FOURTH, ("PART_A = 0.1", "PART_A = 0.2"), ("for _ in range(9)", "for _ in range(8)"))
    undone = changed(again, ("PART_B = 0.05", "PART_B = 0.0"))
    with grown(tmp_path / "c", (FIRST, NO_OP, THIRD, FOURTH, again, undone)) as campaign:
        found = {change.experiment: change for change in campaign.ablate(2).changes}
        assert (found[2].finding, found[2].why) == ("overlaps", "experiment 5 changed the same lines again")
        assert [found[number].finding for number in (1, 3, 6)] == ["replaced", "replaced", "hurts"]
        assert found[1].why == "later changes left nothing of it in the champion"


def test_nothing_to_leave_out_is_refused_with_the_mend(tmp_path: Path) -> None:
    with a_campaign(tmp_path / "c") as campaign:
        with pytest.raises(UserError, match="nothing to leave out in .*: it has no baseline yet; .* autoresearch run"):
            campaign.ablate(3)
        with pytest.raises(UserError, match="a limit is a number from 0 up, not -1"):
            campaign.ablate(3, hours=-1)


def test_the_command_prints_a_table_and_its_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "night"
    grown(root).close()
    opened = Campaign.open
    monkeypatch.setattr(Campaign, "open", lambda root: opened(root, engine=Sums(record=noisy), policy=KeepsAll()))
    first = call("ablate", root, "--trials", 3)
    assert "trials are left to run: the same command continues" in first.out
    assert "4 kept changes of experiment 4: 3 trials to run, about 1.5 s" in first.err
    assert "without 2, seed 2: val 1.8" in first.err
    whole = call("ablate", root)
    for part in ("can't be told from luck: 2", "nodes instead of", "ablate", "--propose", "noise of a pair 0.00"):
        assert part in whole.out
    found = call("ablate", root, "--json").json
    assert [change["finding"] for change in found["changes"]] == ["helps", "noise", "helps", "helps"]
    assert call("ablate", root, "--propose").out.count("experiment 5 tried that: keep") == 1


# The real thing


@pytest.mark.long
def test_the_planted_no_op_in_a_stack_of_four_real_changes(tmp_path: Path, corpus_folder: Path) -> None:
    """Real trials of the numpy trainer: three levers and a function that nobody calls."""
    changes = {"corpus": f"folder:{corpus_folder}", "score_bytes": "8000", "depth": "1", "BACKOFF": "500.0"}
    preset = presets.load("numpy", {**changes, "total_batch_size": "512", "seeds": "[1, 2, 3]"})
    start = reference_trainer("if step == 29: break")
    start = write_constants(start, {"DEPTH": 1, "BACKOFF": 500.0, "TOTAL_BATCH_SIZE": 512})
    first = changed(start, ("DEPTH = 1", "DEPTH = 2"))
    no_op = changed(first, ("def main():", "def unused(x):\n    return [x for _ in range(9)]\n\n\ndef main():"))
    third = changed(no_op, ("BACKOFF = 500.0", "BACKOFF = 20.0"))
    fourth = changed(third, ("TOTAL_BATCH_SIZE = 512", "TOTAL_BATCH_SIZE = 2048"))
    with Campaign.create(tmp_path / "c", preset, trainer=start, policy=KeepsAll(), engine=Steps()) as campaign:
        campaign.run(ScriptedAgent([first, no_op, third, fourth]))
        found = campaign.ablate(3)
    assert [change.finding for change in found.changes] == ["helps", "noise", "helps", "helps"]
    assert found.smaller is not None and found.smaller.without == (2,)
