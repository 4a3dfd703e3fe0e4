"""The reference trainer filled from a preset: ranges that follow the preset's values, and its table [tune]."""

from __future__ import annotations

from pathlib import Path

import pytest

import backends
import presets
from core.records import FIXED, UserError
from core.trainer.constants import read_constants, read_tunables, write_ranges
from core.trainer.reference import reference_trainer

SIZES = ("DEPTH", "SEQUENCE_LENGTH", "TOTAL_BATCH_SIZE")


def ranges(name: str, settings: dict[str, str] | None = None) -> dict[str, str]:
    found = read_tunables(reference_trainer(presets.load(name, settings)))
    return {name: tunable.range for name, tunable in found.items()}


@pytest.mark.parametrize(
    ("name", "settings", "wanted"),
    [
        ("h100", {}, ("int 4 .. 12", "one of 512, 1024, 2048", "log int 65536 .. 1048576")),
        ("cpu", {}, ("int 2 .. 6", "one of 64, 128, 256", "log int 1024 .. 16384")),
        ("cpu", {"depth": "6", "sequence_length": "512"}, ("int 3 .. 9", "one of 128, 256, 512", None)),
        ("smoke", {}, ("int 1 .. 3", "one of 16, 32, 64", "log int 128 .. 2048")),
        ("numpy", {}, ("int 1 .. 2", "one of 32, 64, 128, 256", "log int 512 .. 32768")),
    ],
)
def test_sizes_are_searched_around_the_presets_own(
    name: str, settings: dict[str, str], wanted: tuple[str | None, ...]
) -> None:
    found = ranges(name, settings)
    for size, expected in zip(SIZES, wanted, strict=True):
        assert expected is None or found[size] == expected


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_starts_within_its_ranges(name: str) -> None:
    assert all(tunable.holds_value for tunable in read_tunables(reference_trainer(presets.load(name))).values())


def test_the_reference_trainers_agree_with_the_rule() -> None:
    """The file's own ranges are those of its own values, so the H100's trainer is the file."""
    file = backends.trainer_path("torch").read_text(encoding="utf-8")
    assert reference_trainer(presets.load("h100")) == file


def test_a_logarithmic_range_moves_with_a_constant_that_the_preset_sets() -> None:
    found = ranges("cpu", {"MATRIX_LR": "0.02", "WEIGHT_DECAY": "0.1", "HEAD_DIM": "64"})
    assert found["MATRIX_LR"] == "log 0.0025 .. 0.1"
    assert found["WEIGHT_DECAY"] == "linear 0 .. 0.6"
    assert found["HEAD_DIM"] == "one of 32, 64, 128"


def test_a_preset_says_where_to_search_and_what_to_leave_alone() -> None:
    settings = {"tune.DEPTH": "int 2 .. 5", "tune.WINDOW_PATTERN": FIXED, "tune.COMPILE": 'one of "auto", "eager"'}
    preset = presets.load("cpu", settings)
    text = reference_trainer(preset)
    found = read_tunables(text)
    assert found["DEPTH"].range == "int 2 .. 5"
    assert found["COMPILE"].choices == ("auto", "eager")
    assert "WINDOW_PATTERN" not in found
    assert 'WINDOW_PATTERN = "L"  # S: half the sequence, L: all; the last layer is L\n' in text
    assert read_constants(text) == read_constants(reference_trainer(presets.load("cpu")))
    assert presets.parse(presets.dump(preset)) == preset
    assert presets.override(preset, {"tune.DEPTH": "none"}).tune == {
        key.removeprefix("tune."): words for key, words in settings.items() if key != "tune.DEPTH"
    }


def test_ranges_come_from_the_base_and_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('base = "demo"\n[tune]\nDEPTH = "int 2 .. 4"\nSCALAR_LR = "log 0.1 .. 1"\n', encoding="utf-8")
    demo, mine = presets.load("demo"), presets.load(str(path))
    assert mine.tune == {**demo.tune, "DEPTH": "int 2 .. 4", "SCALAR_LR": "log 0.1 .. 1"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tune.DEPTH": "int 5 .. 2"}, r"preset cpu, \[tune\]: train.py:\d+: DEPTH: expected a range that rises"),
        ({"tune.DEPTH": "fixd"}, r"preset cpu, \[tune\]: .*DEPTH: expected `log 0.005 .. 0.2`.* not 'fixd'"),
        ({"tune.DPTH": "int 1 .. 2"}, r"preset cpu, \[tune\]: .*no module-level constant DPTH: did you mean DEPTH"),
        ({"tune.POLAR_EXPRESS": "int 1 .. 2"}, r"\[tune\]: .*POLAR_EXPRESS: a tunable constant is a literal"),
        ({"tune.DEPTH": "int 5 .. 9"}, r"\[tune\]: DEPTH is 4, outside of its range `int 5 .. 9`: change one of them"),
        ({"tune.depth": "int 1 .. 3"}, r"\[tune\] names constants of the trainer, in capitals as in DEPTH, not 'dep"),
        ({"tune.DEPTH": "int 1 .. 3\nimport os"}, r'\[tune\] DEPTH is "fixed" or a range as behind'),
        ({"tune.DEPTH": "5"}, r'\[tune\] DEPTH is "fixed" or a range as behind `# tune:`.* not 5'),
        ({"tune": "x"}, "a preset has no 'tune'.*tune.MATRIX_LR is one's range"),
    ],
)
def test_a_range_that_cannot_be_is_told(settings: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        reference_trainer(presets.load("cpu", settings))


@pytest.mark.parametrize("table", ["tune", "constants"])
def test_a_table_that_is_none_is_told(table: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'base = "cpu"\n{table} = [1]\n', encoding="utf-8")
    with pytest.raises(UserError, match=rf"mine.toml: {table} is a table, as in \[{table}\], not \[1\]"):
        presets.load(str(path))


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_range_is_written_into_its_comment_alone(newline: str) -> None:
    lines = ["A = 1  # tune: int 1 .. 9; of apples", "B = 2", "C = 3  # of cherries", "D = (", "    4", ")", ""]
    text = newline.join(lines)
    wanted = ["A = 1  # of apples", "B = 2  # tune: int 1 .. 3", "C = 3  # tune: int 3 .. 4; of cherries"]
    wanted += ["D = (", "    4", ")  # tune: int 1 .. 5", ""]
    ranges = {"A": None, "B": "int 1 .. 3", "C": "int 3 .. 4", "D": "int 1 .. 5"}
    assert write_ranges(text, ranges) == newline.join(wanted)
    assert write_ranges(text, {"A": "int 1 .. 9"}) == text
