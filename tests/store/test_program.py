"""program.md: prose and limits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import presets
from core.records import UserError
from core.store import program
from core.store.program import BPB_PER_LINE, Limits, Program


def test_prose_alone() -> None:
    text = "# Lower val_bpb\n\n---\nnot front matter\n---\n"
    assert program.parse(text) == Program(prose=text)
    assert program.parse("") == Program()


def test_limits() -> None:
    read = program.parse("---\nexperiments: 100\nhours: 8\nfixed: [DEPTH, HEAD_DIM]\n---\nGo on.\n")
    assert read == Program(prose="Go on.\n", experiments=100, hours=8.0, fixed=("DEPTH", "HEAD_DIM"))
    assert program.parse("---\nmax_cost: 20\nmax_tokens: 5000000\n---\n") == Program(
        max_cost=20.0, max_tokens=5_000_000
    )
    assert program.parse("---\r\nhours: 0.5\r\n---\r\nGo.\r\n") == Program(prose="Go.\r\n", hours=0.5)
    assert program.parse("---\nstop_chance: 2.5 %\n---\n").stop_chance == pytest.approx(0.025)
    assert program.parse("---\nstop_chance: 0\n---\n").stop_chance == 0
    assert program.parse("").stop_chance == program.STOP_CHANCE
    assert program.parse("---\n# nothing yet\n---\nGo.\n") == Program(prose="Go.\n")


@pytest.mark.parametrize(
    ("front", "said"),
    [
        (
            "experiment: 3",
            r"program.md:2: unknown limit 'experiment'; did you mean experiments \(a whole.*known are .*fixed",
        ),
        ("memory: 12 GB", r"unknown limit 'memory'; did you mean max_memory \(an amount with its unit.*\); known are"),
        ("memory_mb: 12000", "unknown limit 'memory_mb'; did you mean max_memory"),
        ("tokens_per_second: 5", "did you mean min_tokens_per_second"),
        ("parameters: 5", "did you mean max_parameters"),
        ("startup_seconds: 5", "did you mean max_startup"),
        ("vram: 12 GB", r"unknown limit 'vram'; known are experiments \(.*max_memory \(.*bpb_per_line \("),
        ("max_memory: 12", "max_memory: expected an amount with its unit, as in 12 GB.*not '12'"),
        ("max_memory: 12 Gb/s", "expected an amount with its unit"),
        ("max_memory: 0 GB", "expected an amount with its unit"),
        ("max_memory: GB", "expected an amount with its unit"),
        ("max_memory: [12 GB]", "expected an amount with its unit"),
        ("max_parameters: 1.5", "max_parameters: expected a whole number above 0"),
        ("max_parameters: 5 GB", "max_parameters: expected a whole number above 0"),
        ("min_tokens_per_second: -5", "expected a number above 0"),
        ("max_startup: 2 h", "max_startup: expected seconds, as in 90 s or 2 min.*not '2 h'"),
        ("stop_chance: 60 %", "stop_chance: expected a share below 50 %, as in 1 % or 0.01.*not '60 %'"),
        ("stop_chance: 1", "stop_chance: expected a share below 50 %"),
        ("bpb_per_line: -0.001", "bpb_per_line: expected a number from 0 up.*not '-0.001'"),
        ("bpb_per_doubled_speed: .inf", "bpb_per_doubled_speed: expected a number from 0 up"),
        ("experiments: 0", "expected a whole number above 0.*not '0'"),
        ("experiments: true", "expected a whole number"),
        ("experiments: 1.5", "expected a whole number"),
        ("max_cost: 0", "max_cost: expected a number above 0: US dollars.*not '0'"),
        ("max_cost: 5 USD", "expected a number above 0"),
        ("max_tokens: 1.5e0", "max_tokens: expected a whole number above 0"),
        ("hours: -1", "expected a number above 0"),
        ("hours: .inf", "expected a number above 0"),
        ("hours: .nan", "expected a number above 0"),
        ("hours: soon", "expected a number above 0.*'soon'"),
        ("hours: 1,5", "expected a number above 0.*'1,5'"),
        ("hours: 1:75", "expected a number above 0.*'1:75'"),
        ("hours: 0x10", "expected a number above 0"),
        ("hours: [8]", "expected a number above 0"),
        ("hours: 8\nfixed: []\nhours: 9", "program.md:4: hours stands here and at program.md:2; leave one out"),
        ("fixed: DEPTH", "expected a list"),
        ("fixed: [1]", "expected a list"),
        ("fixed: {DEPTH: 4}", "expected a list"),
        ("fixed: ['A B']", "expected a list"),
        ("- a list", "expected `key: value` lines"),
        ("a: [", "program.md:3: the front matter is no YAML"),
        ("a: !!python/object/apply:os.getcwd []", "unknown limit 'a'"),
        ("[a]: 3", "unknown limit"),
        pytest.param("a: " + "[" * 5_000, "nested too deeply", id="nested"),
    ],
)
def test_bad_front_matter_says_what_is_known(front: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        program.parse(f"---\n{front}\n---\nprose\n")


@pytest.mark.parametrize(
    ("front", "read"),
    [
        ("hours: 1:30", Program(hours=1.5)),
        ("hours: 0:45:00", Program(hours=0.75)),
        ("hours: 010", Program(hours=10.0)),
        ("hours: '8'", Program(hours=8.0)),
        ("experiments: 010", Program(experiments=10)),
        ("experiments: 1_000", Program(experiments=1000)),
        ("max_tokens: 1e6", Program(max_tokens=1_000_000)),
        ("max_tokens: 5,000,000", Program(max_tokens=5_000_000)),
        ("max_cost: $5", Program(max_cost=5.0)),
        ("max_cost: .5", Program(max_cost=0.5)),
        ("fixed: [N, ON, Y]", Program(fixed=("N", "ON", "Y"))),
        ("max_memory: 12 GB", Program(limits=Limits(memory_mb=12_288.0))),
        ("max_memory: 12,000MB", Program(limits=Limits(memory_mb=12_000.0))),
        ("max_memory: 1.5gib  # on my card", Program(limits=Limits(memory_mb=1536.0))),
        ("max_parameters: 50M", Program(limits=Limits(parameters=50_000_000))),
        ("max_parameters: 2_000_000", Program(limits=Limits(parameters=2_000_000))),
        ("min_tokens_per_second: 40 K tokens/s", Program(limits=Limits(tokens_per_second=40_000.0))),
        ("min_tokens_per_second: 1.5e6", Program(limits=Limits(tokens_per_second=1_500_000.0))),
        ("max_startup: 2 min", Program(limits=Limits(startup_seconds=120.0))),
        ("max_startup: 90", Program(limits=Limits(startup_seconds=90.0))),
        ("max_val_bpb: 1.05", Program(limits=Limits(val_bpb=1.05))),
        (
            "bpb_per_line: 0\nbpb_per_doubled_speed: 0.01 bpb",
            Program(limits=Limits(bpb_per_line=0.0, bpb_per_doubled_speed=0.01)),
        ),
        ("bpb_per_line:", Program()),
        ("hours:\nfixed: ~", Program()),
    ],
)
def test_values_are_read_as_people_write_them(front: str, read: Program) -> None:
    assert program.parse(f"---\n{front}\n---\n") == read


_NUMBERS = st.floats(min_value=1e-6, max_value=1e12)


@settings(deadline=None)
@given(
    st.builds(
        Limits,
        memory_mb=st.none() | _NUMBERS,
        parameters=st.none() | st.integers(1, 10**12),
        tokens_per_second=st.none() | _NUMBERS,
        startup_seconds=st.none() | _NUMBERS,
        val_bpb=st.none() | _NUMBERS,
        bpb_per_line=st.just(0.0) | _NUMBERS,
        bpb_per_doubled_speed=st.just(0.0) | _NUMBERS,
    )
)
def test_limits_come_back_from_their_json(limits: Limits) -> None:
    again = Limits.from_record(json.loads(json.dumps(limits.to_record())))
    assert again == limits and type(again.parameters) is type(limits.parameters)


def test_an_experiment_without_limits_had_no_prices_either() -> None:
    assert Limits.from_record({}) == Limits(bpb_per_line=0.0)
    assert Limits().to_record() == {"bpb_per_line": BPB_PER_LINE, "bpb_per_doubled_speed": 0.0}
    with pytest.raises(UserError, match="unknown limit watts in a record; known are .*memory_mb"):
        Limits.from_record({"watts": 300.0})


@pytest.mark.parametrize("before", ["\n", " \r\n\n", "\ufeff", "\ufeff\n"])
def test_what_is_empty_before_the_front_matter_switches_no_limit_off(before: str) -> None:
    assert program.parse(f"{before}---\nhours: 8\n---\nGo.\n") == Program(prose="Go.\n", hours=8.0)


def test_a_program_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "program.md").mkdir()
    with pytest.raises(UserError, match=r"program\.md"):
        program.read(tmp_path / "program.md")


def test_front_matter_without_an_end() -> None:
    with pytest.raises(UserError, match="closing line"):
        program.parse("---\nhours: 3\n")


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "program.md"
    assert program.read(path) == Program()
    path.write_bytes("\ufeff---\nhours: 1\n---\nä\n".encode())
    assert program.read(path) == Program(prose="ä\n", hours=1.0)
    path.write_bytes(b"ab\xff")
    with pytest.raises(UserError, match="byte 2"):
        program.read(path)


def test_the_default_program_can_be_read() -> None:
    assert "train.py" in program.parse(presets.program()).prose
