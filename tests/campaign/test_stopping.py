"""The rule that a campaign makes for a candidate's trial, and what becomes of one that it stops."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from campaigns import PRESET, ScriptedAgent, ScriptedEngine, a_campaign, a_trial, trainer

from core.campaign.campaign import Campaign
from core.campaign.judge.base import Policy
from core.campaign.judge.belief import Belief
from core.campaign.judge.greedy import LowerWins
from core.records import Measurement, Trial
from core.trial.spec import TrialSpec
from core.trial.stop_rule import StopDetector, StopRule

STEPS = 40
BATCHES = (16, 32, 1)


class Curves(ScriptedEngine):
    """Trials with loss curves, which lie above each other as their scores do, and which a rule stops."""

    def __init__(self) -> None:
        super().__init__(record=self._with_curve)
        self.rules: list[StopRule | None] = []
        self._stop: StopRule | None = None
        self.during = self._remember

    def _remember(self, spec: TrialSpec) -> None:
        self._stop = spec.stop
        self.rules.append(self._stop)

    def _with_curve(self, into: Path, trial: Trial) -> Trial:
        score = trial.val_bpb
        assert score is not None
        detector = None if self._stop is None else StopDetector(self._stop, BATCHES)
        points = []
        for step in range(1, STEPS + 1):
            progress = step / STEPS
            loss = 5.5 if step == 1 else 3 * score - 3 * progress
            points.append({"step": step, "seconds": progress, "progress": progress, "loss": loss})
            if detector is not None and detector.add(step, progress, loss):
                trial = replace(trial, stop_progress=progress)
                if not detector.rule.secret:
                    trial = replace(
                        trial, verdict="stopped", reason=detector.reason, val_bpb=None, train_seconds=0.3 * progress
                    )
                break
        (into / "curve.jsonl").write_text("".join(json.dumps(point) + "\n" for point in points))
        return trial


def run(
    root: Path, scores: Iterable[float], *, policy: Policy | None = None, full_trials: bool = False, program: str = ""
) -> tuple[Campaign, Curves]:
    engine = Curves()
    campaign = a_campaign(root, 2.0, engine=engine, policy=policy or Belief(), program=program)
    agent = ScriptedAgent([trainer(score, note=str(place)) for place, score in enumerate(scores)])
    campaign.run(agent, full_trials=full_trials)
    return campaign, engine


def test_a_hopeless_candidate_is_stopped_and_counted(tmp_path: Path) -> None:
    campaign, _ = run(tmp_path / "c", [2.01, 2.012, 2.008, 6.0])
    stopped = [e for e in campaign.experiments() if e.verdict == "stopped"]
    assert [e.number for e in stopped] == [4]
    (trial,) = stopped[0].trials
    assert (trial.verdict, trial.val_bpb, stopped[0].val_bpb) == ("stopped", None, None)
    assert stopped[0].reason == trial.reason
    assert trial.stop_progress is not None and trial.stop_progress >= 0.15
    assert campaign.champion.number == 0
    status = campaign.status()
    assert (status.stopped, status.discarded) == (1, 3)
    assert status.stops is not None and (status.stops.stopped, status.stops.audited, status.stops.wrong) == (1, 0, 0)
    assert status.stops.saved_seconds == pytest.approx(0.3 * (1 - trial.stop_progress))
    assert campaign.tried(campaign.text(4)) and campaign.repeat_of(campaign.text(4)) == stopped[0]


def test_rules_are_made_for_candidates_first_seed_alone(tmp_path: Path) -> None:
    _, engine = run(tmp_path / "c", [2.1, 1.9])
    seeds = [seed for _, seed in engine.ran]
    assert seeds[:2] == list(PRESET.seeds)
    for (score, seed), rule in zip(engine.ran, engine.rules, strict=True):
        assert (rule is not None) == (score != 2.0 and seed == PRESET.seeds[0])


@pytest.mark.parametrize("why", ["full_trials", "greedy", "program", "speed", "limit"])
def test_no_trial_is_stopped_where_the_user_or_the_policy_says_so(tmp_path: Path, why: str) -> None:
    fronts = {"program": "stop_chance: 0", "speed": "bpb_per_doubled_speed: 0.01", "limit": "max_val_bpb: 1.5"}
    front = fronts.get(why, "hours: 1")
    _, engine = run(
        tmp_path / "c", [2.1, 6.0], full_trials=why == "full_trials", program=f"---\n{front}\n---\nGo.\n",
        policy=LowerWins() if why == "greedy" else None,
    )  # fmt: skip
    assert engine.rules and not any(engine.rules)


def test_what_runs_on_in_secret_is_judged_and_audited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.campaign.judge.futility.AUDITED", 1)
    campaign, _ = run(tmp_path / "c", [2.01, 2.012, 6.0])
    last = campaign.experiment(3)
    assert last.verdict == "discard" and last.trials[0].verdict == "scored" and last.trials[0].stop_progress
    stops = campaign.status().stops
    assert stops is not None and (stops.stopped, stops.audited, stops.wrong) == (0, 1, 0)


def test_the_chance_is_program_mds(tmp_path: Path) -> None:
    _, usual = run(tmp_path / "a", [2.1, 2.2])
    _, bold = run(tmp_path / "b", [2.1, 2.2], program="---\nstop_chance: 20 %\n---\n")
    one, other = ([rule for rule in engine.rules if rule is not None][-1] for engine in (usual, bold))
    assert (one.chance, other.chance) == (0.01, 0.2)
    assert all(sooner < later for sooner, later in zip(other.equal, one.equal, strict=True))


def test_a_curve_that_is_gone_or_damaged_makes_no_rule(tmp_path: Path) -> None:
    campaign, engine = run(tmp_path / "c", [2.1])
    for text in ("", "{", '{"step": 1}\n', '{"step": 1, "progress": 0.5, "loss": null}\n'):
        (campaign.files.trial(0, 0) / "curve.jsonl").write_text(text)
        campaign.run(ScriptedAgent([*[None] * (len(campaign) - 1), trainer(2.3, note=text)]))
        assert engine.rules[-1] is None


def test_the_slowest_trial_of_the_champion_is_the_one_that_candidates_are_held_against(tmp_path: Path) -> None:
    """So that a candidate beside other work is not stopped for it."""
    campaign, engine = run(tmp_path / "c", [2.1])
    slow = a_trial(seed=PRESET.seeds[0], val_bpb=2.3, tokens_per_second=9_000.0)
    folder = campaign.files.measurement("compare", 2, "champion", slow.seed, 0)
    folder.mkdir(parents=True)
    losses = "".join(json.dumps({"step": n, "progress": n / 20, "loss": 6.0}) + "\n" for n in range(1, 21))
    (folder / "curve.jsonl").write_text(losses)
    baseline = campaign.experiment(0)
    measured = Measurement(
        purpose="compare", series=2, role="champion", experiment=0, commit=baseline.commit, trial=slow
    )  # fmt: skip
    campaign.ledger.record_measurement(measured)
    campaign.run(ScriptedAgent([None, trainer(2.2)]))
    rule = [rule for rule in engine.rules if rule is not None][-1]
    assert {loss for _, _, loss in rule.champion.points} == {6.0}
