"""A small real campaign, its baseline measured once; each test gets a copy, and a temporary folder of its own."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
from campaigns import Steps
from support import RESTING, reference_trainer

import presets
from core.agents import registry
from core.campaign.campaign import Campaign


@pytest.fixture(scope="session")
def measured(cache: Path, corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A campaign of the numpy backend with nothing but its baseline."""
    root = tmp_path_factory.mktemp("measured") / "night"
    preset = dataclasses.replace(presets.load("numpy"), corpus=f"folder:{corpus_folder}", budget_seconds=1.0)
    trainer = reference_trainer(RESTING)
    with Campaign.create(root, preset, trainer=trainer, program="Lower it.\n", tag="t", engine=Steps()) as campaign:
        campaign.run(registry.make("search"), experiments=0)
    return root


@pytest.fixture
def night(measured: Path, tmp_path: Path) -> Path:
    """A copy of `measured`."""
    return shutil.copytree(measured, tmp_path / "night")


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """An empty folder, for TMPDIR: what is left in it was left behind."""
    path = tmp_path / "temporary"
    path.mkdir()
    return path
