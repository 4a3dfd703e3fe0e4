"""`autoresearch confirm`: its numbers as functions of records, and the command with real trials."""

from __future__ import annotations

import ast
import dataclasses
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from campaigns import (
    TEST_HARDER,
    ScriptedAgent,
    ScriptedEngine,
    a_campaign,
    a_trial,
    an_audit,
    events_of,
    trainer,
)
from command import call
from support import reference_trainer
from view_records import an_experiment

import core
from core import events
from core.campaign import confirm
from core.campaign.campaign import Campaign
from core.campaign.schedule import interleaved, remaining
from core.campaign.statistics import Interval
from core.records import Measurement, Trial, UserError
from core.trial.audit import AuditResult
from core.trial.spec import AuditSpec, TrialSpec

BASELINE = an_experiment(0, "keep", val_bpb=2.0, trials=(a_trial(wall_seconds=10.0, score_seconds=2.0),))
CHAMPION = an_experiment(7, "keep", val_bpb=1.9, trials=(a_trial(wall_seconds=11.0, score_seconds=2.0),))


def measured(role: Any, seed: int, **values: Any) -> Measurement:
    of = BASELINE if role == "baseline" else CHAMPION
    trial = a_trial(seed=seed, test_yardstick="t", **values)
    return Measurement(
        purpose="confirm", series=7, role=role, experiment=of.number, commit=of.commit, trial=trial
    )  # fmt: skip


def ran(*gains: tuple[float, float]) -> list[Measurement]:
    """Both sides of a seed each, with these gains on val and test."""
    found = []
    for seed, (val, test) in enumerate(gains, 3):
        found.append(measured("baseline", seed, val_bpb=2.0, test_bpb=2.1))
        found.append(measured("champion", seed, val_bpb=2.0 - val, test_bpb=2.1 - test))
    return found


# Which trials


def test_both_sides_of_a_seed_stand_together_and_the_order_alternates() -> None:
    planned = interleaved(BASELINE, CHAMPION, [3, 4, 5])
    assert [(turn.seed, turn.role[0]) for turn in planned] == [
        (3, "b"), (3, "c"), (4, "c"), (4, "b"), (5, "b"), (5, "c"),
    ]  # fmt: skip
    recorded = [measured("baseline", 3), measured("champion", 3, verdict="crash", val_bpb=None)]
    assert remaining(planned, recorded, 4) == planned[2:]
    assert [turn.role for turn in interleaved(BASELINE, BASELINE, [3, 4])] == ["baseline", "baseline"]


def test_a_disturbed_trial_is_planned_again_and_given_up_after_so_many() -> None:
    planned = interleaved(BASELINE, CHAMPION, [3])
    busy, calm = measured("baseline", 3, disturbed="other work"), measured("baseline", 3)
    assert remaining(planned, [busy] * 3, 4) == planned
    assert remaining(planned, [busy, calm], 4) == planned[1:]
    assert remaining(planned, [busy] * 4, 4) == planned[1:]
    assert remaining(planned, [busy], 1) == planned[1:]  # all that a ledger of version 2 holds
    again = confirm.conclude(BASELINE, CHAMPION, [busy, *ran((0.1, 0.1))])
    assert len(again.pairs) == 1 and not again.failed
    given_up = confirm.conclude(BASELINE, CHAMPION, [busy, *ran((0.1, 0.1))[1:]])
    assert given_up.failed == ("baseline, seed 3: disturbed: other work",) and not given_up.pairs


def test_seeds_are_fresh_and_those_begun_with_come_first() -> None:
    assert confirm.seeds_for(3, [], {1, 2}) == [3, 4, 5]
    assert confirm.seeds_for(2, [], {1, 40}) == [41, 42]
    assert confirm.seeds_for(4, [measured("baseline", 3), measured("champion", 9)], {1, 2, 3, 9}) == [3, 9, 10, 11]
    assert confirm.seeds_for(2, ran((0, 0), (0, 0), (0, 0)), {1, 2, 3, 4, 5}) == [3, 4, 5]
    with pytest.raises(UserError, match="at least 2 seeds, as in --seeds 3; not 1"):
        confirm.seeds_for(1, [], set())


def test_it_says_how_long_it_takes() -> None:
    planned = interleaved(BASELINE, CHAMPION, [3, 4])
    assert confirm.seconds_of(planned) == 2 * (12 + 13)  # the test text is scored as long as the other one
    recorded = [measured("baseline", 3, wall_seconds=20.0)]
    assert confirm.seconds_of(remaining(planned, recorded, 4), recorded) == 20 + 2 * 13


# What came of it


def test_gains_intervals_and_the_share_of_the_claim() -> None:
    found = confirm.conclude(BASELINE, CHAMPION, ran((0.07, 0.06), (0.08, 0.07), (0.09, 0.08)))
    assert found.claimed == pytest.approx(0.1)
    assert (found.val_gain, found.test_gain) == (pytest.approx(0.08), pytest.approx(0.07))
    assert found.val is not None
    assert found.val.half_width == pytest.approx(4.3027 * 0.01 / 3**0.5, rel=1e-4)
    assert found.share == pytest.approx(0.8)
    assert found.line.startswith("confirmed on 3 fresh seeds: val gain 0.0800 +- 0.0248, test 0.0700 +- 0.0248, 80% of")
    assert "holds on fresh seeds and on text" in found.conclusion


def test_a_trial_that_failed_is_told_and_takes_its_seed_out() -> None:
    recorded = ran((0.07, 0.06), (0.09, 0.08))
    recorded += [
        measured("baseline", 5, val_bpb=2.0, test_bpb=2.1),
        measured("champion", 5, verdict="crash", val_bpb=None, reason="out of memory"),
        measured("baseline", 6, val_bpb=2.0, test_bpb=2.1),
    ]
    found = confirm.conclude(BASELINE, CHAMPION, recorded)
    assert [pair.seed for pair in found.pairs] == [3, 4]
    assert found.failed == ("champion, seed 5: crash: out of memory",)
    assert found.unpaired == (6,)
    assert found.val_gain == pytest.approx(0.08)


def test_of_one_pair_nothing_is_concluded() -> None:
    found = confirm.conclude(BASELINE, CHAMPION, ran((0.07, 0.06)))
    assert (found.val, found.test, found.alarm) == (None, None, "")
    assert "nothing is confirmed" in found.conclusion
    assert found.line == "measured on 1 fresh seed: val gain 0.0700, test 0.0600, 70% of the claim; not confirmed"
    none = confirm.conclude(BASELINE, CHAMPION, [measured("baseline", 3)])
    assert none.val_gain is None
    assert none.line.startswith("not confirmed: with fewer than two seeds")


def test_a_claim_of_nothing_has_no_share() -> None:
    champion = dataclasses.replace(CHAMPION, val_bpb=2.0)
    assert confirm.conclude(BASELINE, champion, ran((0.1, 0.1), (0.2, 0.2))).share is None


def of(mean: float, half_width: float) -> Interval:
    return Interval(mean=mean, half_width=half_width, count=3)


@pytest.mark.parametrize(
    ("val", "test", "difference", "alarm", "note", "conclusion"),
    [
        (of(0.10, 0.02), of(0.09, 0.02), of(0.01, 0.02), "", "", "on text that nothing was chosen on"),
        (of(0.10, 0.02), of(0.01, 0.02), of(0.09, 0.02), "do not count on this gain", "", "not on text"),
        (of(0.10, 0.02), of(0.01, 0.02), of(0.09, 0.10), "do not count on this gain", "", "not on text"),
        (
            of(0.10, 0.02),
            of(0.06, 0.02),
            of(0.04, 0.02),
            "to believe is the test text's, 0.0600 +- 0.0200",
            "",
            "holds",
        ),
        (of(0.10, 0.02), of(0.15, 0.02), of(-0.05, 0.02), "", "nothing was fitted", "on text that nothing"),
        (of(0.01, 0.02), of(0.01, 0.02), of(0.00, 0.02), "", "", "can't be told from luck"),
        (of(0.01, 0.02), of(0.03, 0.02), of(-0.02, 0.03), "", "", "can't be told from luck"),
        (of(-0.1, 0.02), of(-0.1, 0.02), of(0.00, 0.02), "", "", "worse than the baseline"),
        (None, None, None, "", "", "nothing is confirmed"),
    ],
)
def test_where_val_and_test_part_there_is_an_alarm(
    val: Interval | None, test: Interval | None, difference: Interval | None, alarm: str, note: str, conclusion: str
) -> None:
    for expected, found in (
        (alarm, confirm.alarm(val, test, difference)),
        (note, confirm.note(difference)),
        (conclusion, confirm.conclusion(val, test)),
    ):
        assert expected in found
        assert bool(expected) == bool(found)


# Campaigns with scripted trials


def grown(root: Path, engine: ScriptedEngine, scores: Sequence[float] = (1.8, 1.9)) -> Campaign:
    campaign = a_campaign(root, engine=engine)
    campaign.run(ScriptedAgent([trainer(score) for score in scores]))
    return campaign


def test_every_trial_is_recorded_and_the_same_command_goes_on(tmp_path: Path) -> None:
    engine, seen = ScriptedEngine(), list[Any]()
    with grown(tmp_path / "c", engine) as campaign:
        head, before = campaign.champion.commit, campaign.experiments()

        def interrupt(spec: TrialSpec) -> None:
            if len(engine.ran) == 7:
                raise KeyboardInterrupt

        engine.during = interrupt
        with pytest.raises(KeyboardInterrupt):
            campaign.confirm(3, seen.append)
        engine.during = lambda spec: None
        part = campaign.confirmation()
        assert part is not None
        assert ([pair.seed for pair in part.pairs], part.unpaired) == ([3], (4,))
        assert engine.ran[4:] == [(2.0, 3), (1.8, 3), (1.8, 4)]
        campaign.run(ScriptedAgent([None, None, trainer(1.85)]), experiments=1)  # a night in between, nothing kept
        found = campaign.confirm(3, seen.append)
        assert [pair.seed for pair in found.pairs] == [3, 4, 5]
        assert engine.ran[-3:] == [(2.0, 4), (2.0, 5), (1.8, 5)]
        assert found.val_gain == pytest.approx(0.2)
        assert found.pairs[0].baseline_test_bpb - found.pairs[0].baseline_bpb == pytest.approx(TEST_HARDER)
        told = events_of(events.Confirming, seen)
        assert [(event.seeds, event.trials) for event in told] == [((3, 4, 5), 6), ((3, 4, 5), 3)]
        assert [event.place for event in events_of(events.Measuring, seen)] == [0, 1, 2, 3, 3, 4, 5]
        count = len(engine.ran)
        assert campaign.confirm(3) == campaign.confirmation() == found
        assert len(engine.ran) == count
        more = campaign.confirm(4)
        assert [pair.seed for pair in more.pairs] == [3, 4, 5, 6]
        # the experiments, the branch and the work tree are what they were
        assert campaign.experiments()[: len(before)] == before
        assert campaign.champion.commit == head
        weights = sorted((campaign.root / ".git" / "autoresearch" / "measurements").rglob("weights.safetensors"))
        assert weights == []


def test_a_new_champion_gets_seeds_of_its_own(tmp_path: Path) -> None:
    with grown(tmp_path / "c", ScriptedEngine()) as campaign:
        assert [pair.seed for pair in campaign.confirm(2).pairs] == [3, 4]
        campaign.run(ScriptedAgent([None, None, trainer(1.7)][2:] * 3), experiments=1)
        assert campaign.champion.val_bpb == 1.7
        old = campaign.confirmation()
        assert old is not None and old.champion == 1
        new = campaign.confirm(2)
        assert (new.champion, [pair.seed for pair in new.pairs]) == (3, [5, 6])


def test_nothing_to_confirm_is_refused_with_the_mend(tmp_path: Path) -> None:
    with a_campaign(tmp_path / "c") as campaign:
        with pytest.raises(UserError, match="it has no baseline yet; .* with: autoresearch run"):
            campaign.confirm(3)
        campaign.run(ScriptedAgent([trainer(2.5)]))
        with pytest.raises(UserError, match="its champion is the baseline; .* with: autoresearch run"):
            campaign.confirm(3)


def test_another_test_text_is_refused(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    with grown(tmp_path / "c", engine) as campaign:
        campaign.confirm(2)
        engine.record = lambda into, trial: dataclasses.replace(trial, test_yardstick="b" * 64)
        with pytest.raises(UserError, match="different yardsticks can't be compared: .*bbbb"):
            campaign.confirm(3)


def test_a_side_that_always_fails_confirms_nothing_and_is_not_run_for_ever(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    with grown(tmp_path / "c", engine) as campaign:
        fails: dict[str, Any] = {"verdict": "crash", "val_bpb": None, "test_bpb": None, "reason": "no luck"}
        engine.record = lambda into, trial: dataclasses.replace(trial, **fails) if "champion" in str(into) else trial
        found = campaign.confirm(2)
        assert (found.pairs, len(found.failed)) == ((), 2)
        count = len(engine.ran)
        campaign.confirm(2)
        assert len(engine.ran) == count


def test_every_trial_of_it_is_audited_deeply_and_one_that_fails_takes_its_seed_out(tmp_path: Path) -> None:
    engine, seen = ScriptedEngine(), list[Any]()
    audit = engine.review

    def fails_once(spec: AuditSpec) -> AuditResult:
        found = audit(spec)
        return dataclasses.replace(found, fault="it peeks") if spec.folder.name == "champion-4" else found

    with grown(tmp_path / "c", engine) as campaign:
        engine.review, before = fails_once, len(engine.reviewed)  # type: ignore[method-assign]
        found = campaign.confirm(3, seen.append)
        assert [name for _, name, _ in engine.reviewed[before:]] == [
            "baseline-3", "champion-3", "champion-4", "baseline-4", "baseline-5", "champion-5",
        ]  # fmt: skip
        assert ([pair.seed for pair in found.pairs], found.unaudited) == ([3, 5], ())
        assert found.failed == ("champion, seed 4: invalid: the audit: it peeks",)
        rows = {(one.role, one.trial.seed): one.trial for one in campaign.ledger.measurements("confirm")}
        bad = rows.pop(("champion", 4))
        assert (bad.val_bpb, bad.test_bpb) == (None, None)
        for trial in (bad, *rows.values()):
            assert trial.audit is not None and trial.test_audit is not None
            assert (trial.audit.kind, trial.test_audit.kind) == ("deep", "deep")
        assert [event.role for event in events_of(events.Reviewing, seen)][:3] == ["baseline", "champion", "champion"]


def test_trials_of_an_earlier_version_count_and_are_named() -> None:
    audited: dict[str, Any] = {"audit": an_audit(), "test_audit": an_audit()}
    recorded = ran((0.07, 0.06), (0.08, 0.07))
    recorded[2:] = [dataclasses.replace(m, trial=dataclasses.replace(m.trial, **audited)) for m in recorded[2:]]
    found = confirm.conclude(BASELINE, CHAMPION, recorded)
    assert ([pair.seed for pair in found.pairs], found.unaudited) == ([3, 4], (3,))
    assert confirm.seconds_of(interleaved(BASELINE, CHAMPION, [5]), recorded) == 2 * (0.5 + 0.25)


def test_only_a_confirmation_asks_for_the_test_split() -> None:
    """No other call in the tree can set the flag."""
    setting = []
    for path in sorted(Path(core.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                for keyword in node.keywords:
                    plain = ast.unparse(keyword.value) in ("test", "spec.test")  # handed through
                    if keyword.arg == "test" and not plain and not ast.unparse(node.func).endswith("Confirmation"):
                        setting.append((path.name, ast.unparse(keyword.value)))
    assert setting == [("campaign.py", "True")]


# The command, with real trials


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory, corpus_folder: Path) -> Path:
    """A campaign whose baseline ignores what the last token tells, so that its champion is far better."""
    root = tmp_path_factory.mktemp("campaigns") / "night"
    settings = ["score_bytes=8000", "peak_tflops=0.001", "seeds=[1]", "depth=1"]
    options = ["--preset", "numpy", "--corpus", f"folder:{corpus_folder}", *(f"--set={one}" for one in settings)]
    trainer = root.parent / "train.py"
    rests = 'if __import__("time").sleep(0.02) or step == 29: break'  # long enough to be seen training
    trainer.write_text(reference_trainer(rests).replace("DEPTH = 2", "DEPTH = 1"), encoding="utf-8")
    call("init", root, *options, "--trainer", trainer)
    path = root / "train.py"
    path.write_text(path.read_text(encoding="utf-8").replace("DEPTH = 1", "DEPTH = 2"), encoding="utf-8")
    assert call("try", "-m", "the last token tells much", "--dir", root, "--json").last["verdict"] == "keep"
    return root


def test_confirm_end_to_end(night: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(night, root)
    assert "not yet: autoresearch confirm" in call("status", "--dir", root).out
    assert call("status", "--dir", root, "--json").json["confirmation"] is None
    head = call("status", "--dir", root, "--json").json["champion_commit"]
    first = call("confirm", "--dir", root, "--seeds", 2)
    assert re.search(r"experiment 1 against the baseline, seeds \d, \d: 4 trials to run, about ", first.err)
    assert re.search(r"4 of 4: baseline \(experiment 0\), seed \d: training", first.err)
    for part in ("val gain", "test gain", "claimed", "remains on fresh seeds", "the gain holds on fresh seeds"):
        assert part in first.out
    told = call("confirm", "--dir", root, "--seeds", 2, "--json")
    assert "all of these trials have run" in told.err
    found = told.json
    assert (found["champion"], found["commit"], len(found["pairs"])) == (1, head, 2)
    assert 0.5 < found["share"] < 1.5
    for pair in found["pairs"]:
        assert 0 < pair["champion_bpb"] < pair["baseline_bpb"] < 8
        assert pair["champion_test_bpb"] not in (pair["champion_bpb"], pair["baseline_test_bpb"])
    status = call("status", "--dir", root, "--json").json
    inner = {"schema_version": 1, **status["confirmation"]}
    assert (inner, status["champion_commit"], status["experiments"]) == (found, head, 1)
    assert f"retest       {found['line']}" in call("status", "--dir", root).out
    call("export", tmp_path / "model", "--dir", root)
    assert f"Against the baseline: {found['line']}." in (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    with Campaign.open(root) as campaign:
        rows = campaign.ledger.measurements("confirm")
        texts = {one.trial.test_yardstick for one in rows}
        assert len(texts) == 1 and texts.isdisjoint({"", rows[0].trial.yardstick})
        assert all(trial.test_bpb is None for e in campaign.experiments() for trial in e.trials)
        assert all(isinstance(one.trial, Trial) and one.trial.conditions["samples"] for one in rows)


def test_confirm_tells_mistakes(night: Path, tmp_path: Path) -> None:
    assert "at least 2 seeds" in call("confirm", "--dir", night, "--seeds", 1, code=2).err
    assert "autoresearch init" in call("confirm", "--dir", tmp_path, code=2).err
