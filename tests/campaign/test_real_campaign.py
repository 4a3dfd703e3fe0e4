"""A campaign with nothing scripted: the numpy backend's trainer under the supervisor, and the search."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from support import BRIEF, reference_trainer

import presets
from core.agents import registry
from core.campaign.campaign import Campaign
from core.records import Experiment


@pytest.fixture
def campaign(tmp_path: Path, corpus_folder: Path):
    preset = dataclasses.replace(presets.load("numpy"), corpus=f"folder:{corpus_folder}")
    trainer = reference_trainer(BRIEF)
    with Campaign.create(tmp_path / "c", preset, trainer=trainer, program="Lower it.\n", tag="real") as campaign:
        yield campaign


def test_baseline_search_and_a_try(campaign: Campaign) -> None:
    campaign.run(registry.make("search", seed=1), experiments=2)
    found = campaign.experiments()
    assert {trial.seed for trial in found[0].trials} == {1, 2}
    for e in found:
        for place, trial in enumerate(e.trials):
            assert trial.verdict == "scored"
            folder = campaign.folder(e.number) / str(place)
            assert (folder / "curve.jsonl").stat().st_size > 0
            assert (folder / "weights.safetensors").exists() == (e.verdict == "keep")
    status = campaign.status()
    assert status.overhead_fraction is not None and 0 < status.overhead_fraction < 1
    assert status.yardstick == found[0].trials[0].yardstick
    assert found[0].spread is not None

    text = (campaign.root / "train.py").read_text()
    (campaign.root / "train.py").write_text(text.replace("def main()", "def nothing()"))
    broken = campaign.try_worktree("without main")
    assert isinstance(broken, Experiment)
    assert (broken.verdict, broken.val_bpb) == ("crash", None)
    assert broken.reason
    assert (campaign.root / "train.py").read_text() == text
