"""The presets that come with autoresearch, `--set`, and the frozen copy."""

import dataclasses
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import backends
import presets
from core.cli.presets import listed, row, toml
from core.records import CONSTANT_FIELDS, UserError
from core.trainer.constants import read_constants
from core.trainer.reference import reference_trainer


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_survives_being_frozen(name: str) -> None:
    preset = presets.load(name)
    assert preset.name == name
    assert presets.parse(presets.dump(preset)) == preset


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_fills_its_backends_trainer(name: str) -> None:
    preset = presets.load(name)
    constants = read_constants(reference_trainer(preset))
    wanted = preset.trainer_constants()
    assert {key: wanted[key] for key in wanted if key in constants} == {
        key: constants[key] for key in wanted if key in constants
    }
    assert set(preset.constants) <= set(constants)
    assert preset.backend in backends.names()


@pytest.mark.parametrize("name", presets.names())
def test_rows_of_a_step_fill_it_exactly(name: str) -> None:
    preset = presets.load(name)
    assert preset.total_batch_size % preset.sequence_length == 0
    rows = preset.total_batch_size // preset.sequence_length
    assert rows % preset.device_batch_size == 0


def test_h100_is_upstreams_setting() -> None:
    preset = presets.load("h100")
    assert (preset.corpus, preset.vocabulary, preset.depth) == ("climbmix", 8192, 8)
    assert (preset.sequence_length, preset.total_batch_size, preset.device_batch_size) == (2048, 2**19, 128)
    assert (preset.budget_seconds, preset.peak_tflops) == (300.0, 989.5)


def test_cpu_is_the_measured_shape() -> None:
    preset = presets.load("cpu")
    constants = preset.trainer_constants()
    assert preset.depth * int(str(constants["ASPECT_RATIO"])) == 128
    assert (preset.depth, preset.sequence_length, preset.vocabulary) == (4, 256, 2048)
    assert (preset.total_batch_size, preset.budget_seconds) == (8192, 300.0)


def test_a_base_gives_what_the_file_does_not_say(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('base = "cpu"\ndepth = 6\n[constants]\nMATRIX_LR = 0.02\n', encoding="utf-8")
    cpu, mine = presets.load("cpu"), presets.load(str(path))
    assert mine == dataclasses.replace(cpu, name="mine", depth=6, constants={**cpu.constants, "MATRIX_LR": 0.02})


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])  # what PowerShell's > and Notepad write
def test_a_file_with_a_byte_order_mark_is_read(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('base = "cpu"\r\ndepth = 6\r\n', encoding=encoding)
    assert presets.load(str(path)) == dataclasses.replace(presets.load("cpu"), name="mine", depth=6)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes('base = "cpu"'.encode("utf-16-le"))
    with pytest.raises(UserError, match=r"mine.toml: expected UTF-8 text, got many NUL bytes"):
        presets.load(str(path))
    with pytest.raises(UserError, match=r"--preset names ~nosuchuser/mine.toml, and there is no home folder"):
        presets.load("~nosuchuser/mine.toml")
    path.write_text("depth = " + "[" * 100_000, encoding="utf-8")
    with pytest.raises(UserError, match=r"mine.toml is not TOML: "):
        presets.load(str(path))
    with pytest.raises(UserError, match="depth is a whole number"):
        presets.load("cpu", {"depth": "[" * 100_000})


def test_bases_in_a_ring_are_told(tmp_path: Path) -> None:
    first, second = tmp_path / "first.toml", tmp_path / "second.toml"
    first.write_text(f'base = "{second.as_posix()}"\n', encoding="utf-8")
    second.write_text(f'base = "{first.as_posix()}"\n', encoding="utf-8")
    with pytest.raises(UserError, match="ring"):
        presets.load(str(first))


def test_settings_are_fields_in_lower_case_and_constants_in_capitals() -> None:
    preset = presets.load(
        "cpu", {"budget_seconds": "20", "seeds": "[3, 4]", "WINDOW_PATTERN": "SL", "X": "[0.8, 0.95]"}
    )
    assert preset.budget_seconds == 20.0
    assert isinstance(preset.budget_seconds, float)
    assert preset.seeds == (3, 4)
    assert preset.constants["WINDOW_PATTERN"] == "SL"
    assert preset.constants["X"] == (0.8, 0.95)


def test_both_names_of_a_number_set_the_same_one() -> None:
    assert presets.load("cpu", {"DEPTH": "6"}) == presets.load("cpu", {"depth": "6"})
    assert presets.load("cpu", {"DEPTH": "6"}).trainer_constants()["DEPTH"] == 6


def test_text_stays_text_even_if_it_reads_as_a_number() -> None:
    assert presets.load("cpu", {"device": "0"}).device == "0"
    assert presets.load("cpu", {"device": '"cuda:1"'}).device == "cuda:1"


def test_a_peak_can_be_taken_away() -> None:
    assert presets.load("h100", {"peak_tflops": "none"}).peak_tflops is None


def test_a_folder_is_named_from_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert presets.load("cpu", {"corpus": "folder:texts"}).corpus == f"folder:{(tmp_path / 'texts').resolve()}"


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("smok", {}, "did you mean smoke"),
        ("nothing-like-it", {}, "there are h100, "),
        ("../presets/cpu", {}, "there is no preset"),
        ("missing.toml", {}, "missing.toml: no such file"),
        ("cpu", {"depht": "3"}, "did you mean depth"),
        ("cpu", {"name": "x"}, "has no 'name'"),
        ("cpu", {"constants": "{}"}, "has no 'constants'"),
        ("cpu", {"vocabulary": "abc"}, "vocabulary is a whole number, not 'abc'"),
        ("cpu", {"vocabulary": "true"}, "vocabulary is a whole number, not True"),
        ("cpu", {"vocabulary": "2048.0"}, "vocabulary is a whole number"),
        ("cpu", {"budget_seconds": '"20"'}, "budget_seconds is a number"),
        ("cpu", {"seeds": "1"}, "seeds is whole numbers"),
        ("cpu", {"MATRIX_LR": "{a = 1}"}, "MATRIX_LR is a number"),
        ("cpu", {"vocabulary": "257"}, "256 .plain bytes. or of 258 and more"),
        ("cpu", {"vocabulary": "100"}, "256 .plain bytes. or of 258 and more"),
        ("cpu", {"depth": "0"}, "depth is a finite number above 0"),
        ("cpu", {"depth": "1" * 400}, r"depth is a whole number, not 1{60}\.\.\.$"),
        ("cpu", {"depth": "1" * 5000}, "depth is a whole number, not '1"),
        ("cpu", {"budget_seconds": "1" * 400}, "budget_seconds is a number"),
        ("cpu", {"budget_seconds": "1e999"}, "budget_seconds is a finite number above 0"),
        ("cpu", {"budget_seconds": "inf"}, "budget_seconds is a finite number above 0"),
        ("cpu", {"budget_seconds": "nan"}, "budget_seconds is a finite number above 0"),
        ("cpu", {"peak_tflops": "-1"}, "peak_tflops is a finite number above 0"),
        ("cpu", {"total_batch_size": "128"}, "less than sequence_length 256"),
        ("cpu", {"seeds": "[1, 1]"}, "different whole numbers"),
        ("cpu", {"seeds": "[]"}, "at least one"),
        ("cpu", {"seeds": "[-1]"}, "none below 0"),
    ],
)
def test_a_mistake_is_told(name: str, settings: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        presets.load(name, settings)


@pytest.mark.parametrize("pair", ["depth", "=3", " = 3"])
def test_a_setting_without_a_key_or_a_value_is_told(pair: str) -> None:
    with pytest.raises(UserError, match="KEY=VALUE"):
        presets.settings_from([pair])


def test_the_last_of_two_settings_counts_and_values_may_hold_equals_signs() -> None:
    assert presets.settings_from(["depth=3", "depth = 4", "X=a=b"]) == {"depth": "4", "X": "a=b"}


def test_a_frozen_preset_that_lacks_a_field_or_has_one_too_many_is_told() -> None:
    frozen = presets.dump(presets.load("cpu"))
    with pytest.raises(UserError, match="no value for vocabulary"):
        presets.parse(frozen.replace("vocabulary", "# vocabulary"))
    with pytest.raises(UserError, match="unknown field colour"):
        presets.parse("colour = 1\n" + frozen)
    with pytest.raises(UserError, match="not TOML"):
        presets.parse("name = ")


constants = st.dictionaries(
    st.from_regex(r"[A-Z][A-Z0-9_]{0,9}", fullmatch=True).filter(lambda name: name not in CONSTANT_FIELDS),
    st.one_of(
        st.booleans(),
        st.integers(-(2**40), 2**40),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(st.characters(codec="utf-8", exclude_characters="\r\n")),
        st.lists(st.floats(allow_nan=False, allow_infinity=False)).map(tuple),
    ),
    max_size=5,
)


@given(constants=constants, corpus=st.text(st.characters(codec="utf-8")), budget=st.floats(1e-3, 1e9))
def test_what_is_frozen_reads_back_exactly(constants: dict[str, object], corpus: str, budget: float) -> None:
    preset = dataclasses.replace(
        presets.load("cpu"),
        constants=constants,  # type: ignore[arg-type]
        corpus=corpus,
        budget_seconds=budget,
    )
    text = presets.dump(preset)
    assert presets.parse(text) == preset
    assert tomllib.loads(text)["corpus"] == corpus


def test_an_override_starts_from_the_given_preset() -> None:
    preset = presets.load("cpu", {"MATRIX_LR": "0.03", "depth": "6"})
    again = presets.override(preset, {"budget_seconds": "20"})
    assert again == dataclasses.replace(preset, budget_seconds=20.0)
    assert presets.override(preset, {}) == preset


def test_a_wheel_holds_the_presets_the_trainers_and_the_program(tmp_path: Path) -> None:
    root = Path(presets.__file__).parent.parent
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(command, check=True, cwd=root)
    target = tmp_path / "site"
    (wheel,) = tmp_path.glob("*.whl")
    shutil.unpack_archive(wheel, target, "zip")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import presets, backends\n"
        "assert presets.__file__.startswith(sys.argv[1]), presets.__file__\n"
        "print(presets.program()[:9], *presets.names(), backends.trainer_path('numpy').exists())"
    )
    run = [sys.executable, "-c", code, str(target)]
    said = subprocess.run(run, check=True, capture_output=True, text=True, cwd=tmp_path).stdout
    assert said.split() == ["#", "Program", *presets.names(), "True"]


def test_numbers_on_another_device_are_claimed_for_none() -> None:
    for settings in ({"device": "cpu"}, {"backend": "jax"}):
        found = listed("cpu" if "backend" in settings else "h100", settings)
        assert (found.estimate, found.elsewhere) == (None, True)
        got = toml(found)
        assert "measured on" not in got and "derived" not in got and "989.5" not in got
        assert f"nothing is measured or estimated for {found.preset.backend} on cpu" in got
        rows = row(found, None)
        assert (rows["measured"], rows["derived"], rows["estimate"]) == (None, False, {})
    same = listed("h100", {"device": "cuda:1"})
    assert not same.elsewhere and same.estimate is not None
