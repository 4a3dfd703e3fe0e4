"""Every variant is a change that the trainer as it is can take."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import presets
from benchmarks.gpu_profile import load
from benchmarks.gpu_variants import VARIANTS, settings_of, with_choices
from core.records import Preset, to_json
from core.trainer.check import check
from core.trainer.constants import read_constants
from core.trainer.reference import reference_trainer

ROOT = Path(__file__).parents[2]


def changed(name: str, preset: str) -> tuple[Preset, str]:
    variant = VARIANTS[name]
    found = presets.load(preset, settings_of(variant, to_json(presets.load(preset))))
    return found, with_choices(reference_trainer(found), variant.choices)


@pytest.mark.parametrize("preset", ["h100", "smoke"])
@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_is_a_trainer_that_may_be_tried(name: str, preset: str) -> None:
    usual = reference_trainer(presets.load(preset))
    found, text = changed(name, preset)
    check(text)
    assert text != usual or preset == "smoke"  # which has no windows
    constants = read_constants(text)
    assert constants["DEVICE_BATCH_SIZE"] == found.device_batch_size
    assert constants["TOTAL_BATCH_SIZE"] == found.total_batch_size


@pytest.mark.parametrize("name", [name for name, variant in VARIANTS.items() if variant.choices])
def test_choices_hold_where_the_trainer_chooses(name: str, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    trainer: ModuleType = load(changed(name, "h100")[1], tmp_path)
    hopper = trainer.Machine(device="cuda", capability=(9, 0), triton=True, compiler=True)
    for choices in (trainer.choose(hopper), trainer.choose(hopper, "eager")):
        for field, value in VARIANTS[name].choices.items():
            assert getattr(choices, field) == eval(value, {"torch": trainer.torch})  # noqa: S307
    assert trainer.choose(hopper).compiled


def test_without_a_name_the_variants_are_listed() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu_variants"]
    done = subprocess.run([*command], cwd=ROOT, capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(VARIANTS)
    done = subprocess.run([*command, "slow"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "expected one of half-slices" in done.stderr
