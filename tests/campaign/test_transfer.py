"""`autoresearch transfer`: the trainers of another scale, how much of a gain carries over, and the command."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from campaigns import ScriptedAgent, ScriptedEngine, Steps, a_campaign, a_trial, events_of, trainer
from command import call
from view_records import an_experiment

import presets
from core import events
from core.campaign import transfer
from core.campaign.campaign import Campaign
from core.campaign.confirm import conclude as confirmation_of
from core.campaign.judge.greedy import LowerWins
from core.campaign.statistics import Interval, pooled, share_of
from core.campaign.transfer import carry, scaled_preset
from core.records import Measurement, Preset, Trial, UserError
from core.trainer.constants import read_constants, write_constants
from core.trainer.reference import reference_trainer
from core.trial.spec import TrialSpec

SMOKE = presets.load("smoke")
BASELINE = reference_trainer(SMOKE)
YARDSTICK, OTHER = "a" * 64, "b" * 64


# The trainers of another scale


def test_edits_of_code_and_of_constants_are_carried_and_sizes_in_proportion() -> None:
    champion = write_constants(BASELINE, {"DEPTH": 3, "MATRIX_LR": 0.07, "WINDOW_PATTERN": "SL"})
    champion = champion.replace("SOFTCAP = 15.0", "SOFTCAP = 20.0\nADDED = 1")
    found = carry(BASELINE, champion, SMOKE, presets.override(SMOKE, {"depth": "4"}))
    assert found.baseline == write_constants(BASELINE, {"DEPTH": 4})
    assert found.champion == write_constants(champion, {"DEPTH": 6})
    (note,) = found.notes
    assert note == (
        "DEPTH: the campaign changed it from 2 to 3; there the baseline has 4, and the champion gets 6"
    )  # fmt: skip


def test_what_another_preset_sets_comes_with_it() -> None:
    """Also a constant that only the campaign's own preset names: elsewhere it is the reference trainer's."""
    champion = write_constants(BASELINE, {"HEAD_DIM": 64, "EMBEDDING_LR": 0.9})
    new = scaled_preset(SMOKE, presets.load("h100"), {})
    found = carry(BASELINE, champion, SMOKE, new)
    here, there = read_constants(found.baseline), read_constants(found.champion)
    assert {name: here[name] for name in ("DEPTH", "HEAD_DIM", "TOTAL_BATCH_SIZE", "ASPECT_RATIO")} == {
        "DEPTH": 8, "HEAD_DIM": 128, "TOTAL_BATCH_SIZE": 524288, "ASPECT_RATIO": 64,
    }  # fmt: skip
    assert {name: there[name] for name in here if here[name] != there[name]} == {"HEAD_DIM": 64, "EMBEDDING_LR": 0.9}
    assert (new.corpus, new.score_bytes, new.vocabulary) == (SMOKE.corpus, SMOKE.score_bytes, 8192)


def test_to_another_backend_constants_go_alone_and_it_is_said() -> None:
    champion = write_constants(BASELINE, {"MATRIX_LR": 0.08, "COMPILE": "eager"})
    champion = champion.replace("NORM_EPSILON = 1e-6", "NORM_EPSILON = 1e-6\nNEW = 3")
    new = dataclasses.replace(SMOKE, backend="jax")
    found = carry(BASELINE, champion, SMOKE, new)
    assert found.baseline == reference_trainer(new)
    assert found.champion == write_constants(found.baseline, {"MATRIX_LR": 0.08})
    assert found.notes == (
        "what the campaign changed in the code can't go from torch to jax: constants alone",
        "COMPILE would mean nothing to the trainer for jax: left behind",
        "carried: MATRIX_LR 0.04 -> 0.08",
    )
    only_code = BASELINE.replace("NORM_EPSILON = 1e-6", "NORM_EPSILON = 1e-6\nNEW = 3")
    with pytest.raises(UserError, match="nothing of the champion can go from torch to jax: only constants can"):
        carry(BASELINE, only_code, SMOKE, new)


def test_a_trainer_without_the_constant_cant_be_scaled() -> None:
    champion = BASELINE.replace("DEPTH", "LAYERS")
    with pytest.raises(
        UserError, match=r"the champion's train.py has no constant DEPTH, so it can't be set for another"
    ):
        carry(BASELINE, champion, SMOKE, presets.override(SMOKE, {"depth": "4"}))


def test_the_same_scale_is_refused() -> None:
    with pytest.raises(UserError, match="that is the campaign's own scale: name another one, as in --depth 8"):
        scaled_preset(SMOKE, None, {"depth": "2"})
    with pytest.raises(UserError, match="that is the campaign's own scale"):
        scaled_preset(SMOKE, presets.load("smoke"), {"tune.DEPTH": "fixed"})
    assert transfer.differences(SMOKE, scaled_preset(SMOKE, None, {"depth": "4", "SOFTCAP": "9.0"})) == {
        "depth": ("2", "4"), "SOFTCAP": ("default", "9.0"),
    }  # fmt: skip


# What comes of it

CARRIED = transfer.Carried(preset=dataclasses.replace(SMOKE, depth=4), baseline="b", champion="c", notes=("n",))


def experiments(**values: Any) -> list[Any]:
    trial = a_trial(yardstick=YARDSTICK, vocabulary=256, **values)
    return [
        an_experiment(0, "keep", val_bpb=2.0, trials=(trial,)),
        an_experiment(7, "keep", val_bpb=1.9, trials=(trial,)),
    ]


def ran(*gains: float | None, yardstick: str = YARDSTICK, vocabulary: int = 256) -> list[Measurement]:
    found = []
    for seed, gain in enumerate(gains, 3):
        for role, bpb in (("baseline", 1.7), ("champion", None if gain is None else 1.7 - gain)):
            verdict: Any = "scored" if bpb is not None else "crash"
            trial = a_trial(
                seed=seed, val_bpb=bpb, verdict=verdict, yardstick=yardstick, vocabulary=vocabulary, reason="boom"
            )
            found.append(Measurement(purpose="transfer-x", series=7, role=role, experiment=0, commit="c", trial=trial))
    return found


def concluded(recorded: Sequence[Measurement], confirmed: Any = None) -> transfer.Transfer:
    baseline, champion = experiments()
    return transfer.conclude(baseline, champion, CARRIED, SMOKE, recorded, confirmed)


def test_the_share_that_carries_over_and_its_interval() -> None:
    found = concluded(ran(0.04, 0.05, 0.06))
    assert found.interval is not None and found.interval.half_width == pytest.approx(4.3027 * 0.01 / 3**0.5, rel=1e-4)
    assert (found.gain, found.gain_here, found.share) == (pytest.approx(0.05), pytest.approx(0.1), pytest.approx(0.5))
    assert (found.share_low, found.share_high) == (pytest.approx(0.2516, abs=1e-4), pytest.approx(0.7484, abs=1e-4))
    assert found.conclusion == "the gain carries over: 25% to 75% of it"
    assert (found.scale, found.same_text, found.vocabulary) == ({"depth": ("2", "4")}, True, (256, 256))
    assert "as the campaign claims it" in found.gain_here_from


@pytest.mark.parametrize(
    ("gains", "conclusion"),
    [
        ((), "with fewer than two seeds"),
        ((0.05,), "with fewer than two seeds"),
        ((0.05, -0.05, 0.02), "there the gain can't be told from luck on 3 seeds"),
        ((-0.05, -0.051, -0.049), "there the champion is worse than the baseline, by 0.0500 +- 0.0025"),
        ((0.15, 0.151, 0.149), "all of the gain carries over and more: 148% to 152% of it"),
    ],
)
def test_what_it_means_in_plain_words(gains: Sequence[float], conclusion: str) -> None:
    assert concluded(ran(*gains)).conclusion.startswith(conclusion)


def test_a_failed_or_disturbed_trial_takes_its_seed_out_and_is_named() -> None:
    recorded = ran(0.05, None, 0.06, 0.05)
    slow = dataclasses.replace(recorded[-1], trial=dataclasses.replace(recorded[-1].trial, disturbed="other load 60%"))
    found = concluded([*recorded[:-1], slow])
    assert [pair.seed for pair in found.pairs] == [3, 5]
    assert found.failed == ("champion, seed 4: crash: boom", "champion, seed 6: disturbed: other load 60%")
    assert concluded(recorded[:3]).unpaired == (4,)


def test_another_text_and_another_vocabulary_are_told() -> None:
    found = concluded(ran(0.05, 0.06, yardstick=OTHER, vocabulary=2048))
    assert (found.same_text, found.yardstick, found.vocabulary) == (False, OTHER, (256, 2048))
    with pytest.raises(UserError, match="different yardsticks can't be compared"):
        concluded(ran(0.05) + ran(0.05, 0.06, yardstick=OTHER)[2:])


def test_a_confirmed_gain_is_what_it_is_compared_with() -> None:
    rows = []
    for one in ran(0.08, 0.09, 0.10):
        trial = dataclasses.replace(one.trial, test_bpb=one.trial.val_bpb)
        rows.append(dataclasses.replace(one, purpose="confirm", trial=trial))
    baseline, champion = experiments()
    confirmed = confirmation_of(baseline, champion, rows)
    found = concluded(ran(0.044, 0.045, 0.046), confirmed)
    assert (found.gain_here, found.share) == (pytest.approx(0.09), pytest.approx(0.5))
    assert found.gain_here_from == "confirmed on 3 fresh seeds"
    assert found.share_low is not None and found.share_high is not None
    assert found.share_low < 0.4 and found.share_high > 0.65, "the confirmation's own interval counts too"


def test_fiellers_interval_covers_the_true_share_as_often_as_it_says() -> None:
    random, hits, count = np.random.default_rng(1), 0, 2000
    for _ in range(count):
        part, whole = random.normal(0.5, 0.1), random.normal(1.0, 0.15)
        found = share_of(
            Interval(mean=part, half_width=1.96 * 0.1, count=3), Interval(mean=whole, half_width=1.96 * 0.15, count=3)
        )
        assert found is not None
        hits += found[0] <= 0.5 <= found[1]
    assert 0.93 < hits / count < 0.97
    assert share_of(Interval(mean=0.1, half_width=0.1, count=3), Interval(mean=0.1, half_width=0.2, count=3)) is None


def test_noise_is_pooled_within_groups() -> None:
    assert pooled([[1.0, 3.0], [10.0, 10.0], [5.0], []]) == (1.0, 2)
    assert pooled([[1.0], [2.0]]) == (0.0, 0)


# Campaigns


def longer(root: Path) -> Preset:
    with Campaign.open(root) as campaign:
        return scaled_preset(campaign.preset, None, {"budget_seconds": "0.6"})


def test_every_trial_is_recorded_beside_the_campaign_and_the_same_call_goes_on(tmp_path: Path) -> None:
    root = tmp_path / "c"

    def interrupt(spec: TrialSpec) -> None:
        budgets.append(spec.budget.seconds)
        if len(budgets) in (3, 6):
            raise KeyboardInterrupt

    def other(into: Path, trial: Trial) -> Trial:
        if "measurements" not in into.parts or trial.val_bpb is None:
            return trial
        return dataclasses.replace(trial, val_bpb=trial.val_bpb / 2 + trial.seed / 1000, yardstick=OTHER)

    engine, seen, budgets = ScriptedEngine(record=other), list[Any](), list[float | None]()
    with a_campaign(root, engine=engine, policy=LowerWins()) as campaign:
        campaign.run(ScriptedAgent([trainer(1.8)]))
        before, facts = campaign.experiments(), campaign.ledger.facts()
        engine.during = interrupt
        new = longer(root)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                campaign.transfer(new, 3, seen.append)
        found = campaign.transfer(new, 3, seen.append)
        assert set(budgets) == {0.6} and len(budgets) == 8
        assert [len(found.pairs), found.same_text, found.scale] == [3, False, {"budget_seconds": ("0.3", "0.6")}]
        assert (found.gain, found.share) == (pytest.approx(0.1), pytest.approx(0.5))
        texts = [event.text for event in events_of(events.Notice, seen)]
        assert texts[0].startswith("experiment 1 against the baseline at that scale: 6 trials to run, about ")
        assert campaign.transfer(new, 3) == found and len(budgets) == 8
        other_scale = scaled_preset(campaign.preset, None, {"budget_seconds": "0.7"})
        assert len(campaign.transfer(other_scale, 2).pairs) == 2, "a scale of its own"
        assert len(campaign.transfer(new, 4).pairs) == 4
        # the campaign is what it was
        assert (campaign.experiments(), campaign.ledger.facts()) == (before, facts)
        frozen = (campaign.files.state / "measurements").glob("transfer-*/1/preset.toml")
        assert sorted(presets.parse(path.read_text(encoding="utf-8")).budget_seconds for path in frozen) == [0.6, 0.7]
        assert list(campaign.files.state.glob("measurements/**/weights.safetensors")) == []


def test_the_command_with_real_trials(tmp_path: Path, corpus_folder: Path) -> None:
    root = tmp_path / "night"
    settings = ["score_bytes=8000", "seeds=[1]", "peak_tflops=0.001", "depth=1", "SMOOTHING=5000.0"]
    call(
        "init", root, "--preset", "numpy", "--corpus", f"folder:{corpus_folder}", *(f"--set={one}" for one in settings)
    )
    answer = call("transfer", root, "--depth", 2, code=2)
    assert "nothing to transfer in" in answer.err and "it has no baseline yet" in answer.err
    with Campaign.open(root, engine=Steps(), policy=LowerWins()) as campaign:
        smoother = write_constants(campaign.trainer_text(campaign.branch), {"SMOOTHING": 0.5})
        campaign.run(ScriptedAgent([smoother]))
        assert campaign.champion.number == 1
    first = call("transfer", root, "--depth", 2, "--seeds", 2)
    assert "1 of 4: baseline (experiment 0), seed 2: training" in first.err
    for part in ("scale      depth 1 -> 2", "gain there ", "gain here ", "the campaign's own"):
        assert part in first.out
    found = call("transfer", root, "--depth", 2, "--seeds", 2, "--json").json
    assert ([pair["seed"] for pair in found["pairs"]], found["same_text"]) == ([2, 3], True)
    # bigrams instead of unigrams: what both score there is far from what they score here
    assert all(pair["baseline_bpb"] < 0.9 * campaign_bpb(root) for pair in found["pairs"])


def campaign_bpb(root: Path) -> float:
    return float(call("status", root, "--json").json["baseline_bpb"])


@pytest.mark.long
@pytest.mark.timeout(900)
def test_from_depth_2_to_4_on_a_cpu(tmp_path: Path, corpus_folder: Path) -> None:
    """A transformer's learning rate, raised from far too low a value, helps at twice the depth as well."""
    pytest.importorskip("torch")
    corpus = {"corpus": f"folder:{corpus_folder}", "device": "cpu", "seeds": "[1]", "MATRIX_LR": "0.0005"}
    preset = presets.load("smoke", {**corpus, "EMBEDDING_LR": "0.005", "score_bytes": "8000"})
    engine = Steps()
    with Campaign.create(tmp_path / "c", preset, engine=engine, policy=LowerWins()) as campaign:
        raised = write_constants(reference_trainer(preset), {"MATRIX_LR": 0.04, "EMBEDDING_LR": 0.6})
        campaign.run(ScriptedAgent([raised]))
        assert campaign.champion.number == 1
        found = campaign.transfer(scaled_preset(preset, None, {"depth": "4"}), 2)
        assert found.scale == {"depth": ("2", "4")} and len(found.pairs) == 2
        assert found.interval is not None and found.interval.above_zero
        assert found.share is not None and found.share_low is not None and found.share_high is not None
        assert found.share_low < found.share < found.share_high
        parameters = [one.trial.parameters for one in campaign.ledger.measurements(transfer_name(campaign, preset))]
        assert all(one is not None and one > 2 * (campaign.champion.trials[0].parameters or 0) for one in parameters)


def transfer_name(campaign: Campaign, preset: Preset) -> str:
    texts = campaign.text(0), campaign.text(1)
    return carry(*texts, preset, scaled_preset(preset, None, {"depth": "4"})).name
