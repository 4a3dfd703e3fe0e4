"""The tools of a model, one by one, on a history in memory."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from campaigns import PRESET
from histories import MemoryHistory
from hypothesis import given
from hypothesis import strategies as st
from scripted_model import PlainContext, a_check, use

from core.agents.api.arguments import ToolError
from core.agents.api.draft import Draft
from core.agents.api.quoting import Quotes, escaped, mark_of
from core.agents.api.tools import CHECKS, TOOLS
from core.agents.api.workbench import Workbench
from core.agents.lessons import Lessons
from core.agents.record_text import bounded
from core.records import Constant, Proposal
from core.store.program import Program
from core.system.text import clean

TEXT = """\
RATE = 0.1  # tune: log 0.01 .. 1
LAYERS = 2


def main():
    for layer in range(LAYERS):
        print(layer)
    for layer in range(LAYERS):
        print("again", layer)
"""
MARK = "0123456789abcdef"


def measure(constants: Mapping[str, Constant]) -> float | None:
    return None if constants["LAYERS"] == 9 else 2.0 - 0.1 * float(str(constants["RATE"]))


def a_history(program: Program | None = None) -> MemoryHistory:
    history = MemoryHistory(TEXT, measure, PRESET, program)
    for number, (old, new) in enumerate([("0.1", "0.05"), ("0.1", "0.2"), ("= 2", "= 9"), ("0.2", "0.15")], 1):
        text = history.champion_text.replace(old, new, 1)
        history.record(Proposal(text=text, hypothesis=f"idea {number}", agent="search" if number < 3 else "api:m"))
    assert [one.verdict for one in history.found] == ["keep", "discard", "keep", "crash", "discard"]
    return history


@pytest.fixture
def context(tmp_path: Path) -> PlainContext:
    return PlainContext(tmp_path, lambda text: a_check(fault="no main" if "main" not in text else "", output="hello\n"))


@pytest.fixture
def bench(context: PlainContext) -> Workbench:
    lessons = Lessons(context.root / "lessons.md", context.tell)
    history = a_history(Program(prose="Lower it.", fixed=("LAYERS",)))
    return Workbench(history, context, lessons, Quotes(MARK), "api:m", Draft(history.champion_text))


def told(bench: Workbench, name: str, wrong: bool = False, **fields: Any) -> str:
    result = bench.answer(use(name, **fields))
    assert result["is_error"] is wrong, result
    return str(result["content"])


# Input that does not fit


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("format_disk", {}, "there is no tool 'format_disk'; there are read_trainer, read_program"),
        (None, {}, "there is no tool 'None'"),
        (["edit"], {}, "there is no tool"),
        (
            "edit",
            '{"old": "a", "new',
            'edit: expected a JSON object with old, new, all; string \'{"old": "a", "new\' came',
        ),
        ("edit", ["a", "b"], "expected a JSON object with old, new, all; list"),
        ("edit", {"old": "a"}, "edit needs new; it takes old, new, all"),
        ("edit", {"old": "a", "new": None}, "edit needs new"),
        ("edit", {"old": 3, "new": "b"}, "edit: old: expected a string; integer '3' came"),
        ("edit", {"old": "a", "new": "b", "all": "yes"}, "edit: all: expected a boolean; string 'yes' came"),
        ("edit", {"old": "a", "new": "b", "path": "/etc/passwd"}, "edit has no field path; it takes old, new, all"),
        ("read_experiment", {"number": True}, "expected an integer; boolean 'True' came"),
        ("read_experiment", {"number": 1.5}, "expected an integer; number '1.5' came"),
        ("read_experiment", {"number": -1}, "number: expected 0 or more; -1 came"),
        (
            "read_experiment",
            {"number": 10**30},
            "there is no experiment 1000000000000000000000000000000; there are 0 to 4",
        ),
        (
            "list_experiments",
            {"verdict": "kept"},
            "expected one of keep, discard, stopped, crash, invalid; 'kept' came",
        ),
        ("list_experiments", {"sort": {"by": "score"}}, "sort: expected a string; object"),
        ("read_program", {"path": "x"}, "read_program has no field path; it takes no fields"),
        ("propose", {}, "propose needs hypothesis"),
        ("read_trainer", {"first": 0}, "first: expected 1 or more; 0 came"),
        ("read_trainer", {"first": 400}, "there are lines 1 to 9"),
        ("read_trainer", {"first": 5, "last": 2}, "there are lines 1 to 9"),
    ],
)
def test_input_that_does_not_fit_is_told_and_changes_nothing(
    bench: Workbench, name: object, given: object, said: str
) -> None:
    call = {**use(name), "input": given}
    result = bench.answer(call)
    assert (result["tool_use_id"], result["is_error"]) == (call["id"], True)
    assert said in result["content"]
    assert not bench.done and not bench.draft.changed


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_fields = st.sampled_from(sorted({field for tool in TOOLS for field in tool.schema["properties"]}))


@given(
    name=st.sampled_from([tool.name for tool in TOOLS]) | _json,
    given_=_json | st.dictionaries(_fields, _json, max_size=3),
)
def test_no_input_raises(tmp_path_factory: pytest.TempPathFactory, name: object, given_: object) -> None:
    context = PlainContext(tmp_path_factory.getbasetemp())
    history, lessons = a_history(), Lessons(context.root / "l.md", context.tell)
    bench = Workbench(history, context, lessons, Quotes(MARK), "api:m", Draft(history.champion_text))
    result = bench.answer({"type": "tool_use", "id": "1", "name": name, "input": given_})
    assert isinstance(result["content"], str) and result["content"]


# Reading


def test_the_trainer_is_read_with_numbers_in_ranges_and_of_any_experiment(bench: Workbench) -> None:
    whole = told(bench, "read_trainer")
    assert whole.startswith("your draft of train.py, lines 1 to 9 of 9\n<data-")
    assert "1| RATE = 0.2  # tune: log 0.01 .. 1\n2| LAYERS = 2\n" in whole
    part = told(bench, "read_trainer", first=5, last=6, experiment=1)
    assert "train.py of experiment 1, lines 5 to 6 of 9; go on from line 7" in part
    assert "5| def main():\n6|     for layer in range(LAYERS):\n</data-" in part
    assert "RATE = 0.05" in told(bench, "read_trainer", experiment=1)


def test_experiments_are_listed_by_range_verdict_and_score(bench: Workbench) -> None:
    def numbers(**fields: Any) -> list[int]:
        return [int(found) for found in re.findall(r"^#(\d+)", told(bench, "list_experiments", **fields), re.MULTILINE)]

    assert numbers() == [4, 3, 2, 1, 0]
    assert numbers(first=1, last=3) == [3, 2, 1]
    assert numbers(verdict="discard") == [4, 1]
    assert numbers(sort="score") == [2, 4, 0, 1]
    assert numbers(sort="score", count=2, last=1) == [0, 1]
    assert "2 of 5\n" in told(bench, "list_experiments", count=2)
    assert told(bench, "list_experiments", verdict="invalid") == "none; there are experiments 0 to 4"
    assert "#2 keep 1.9800 gain +0.0100 [search] idea 2" in told(bench, "list_experiments")


# The draft


def test_an_edit_replaces_what_is_there_once(bench: Workbench) -> None:
    assert told(bench, "edit", old="LAYERS = 2\n", new="LAYERS = 3\n") == "replaced at line 2"
    assert bench.draft.text == TEXT.replace("0.1", "0.2", 1).replace("LAYERS = 2", "LAYERS = 3")
    assert "-LAYERS = 2\n+LAYERS = 3" in told(bench, "diff")
    told(bench, "reset_draft")
    assert told(bench, "diff") == "Your draft is the champion's text."


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("in range(LAYERS)", "x", "`old` is there 2 times, from lines 6, 8: take in more of the lines around"),
        ("", "x", "`old` is empty"),
        ("RATE", "RATE", "nothing would change"),
        ("2| LAYERS = 2", "x", "holds line numbers"),
        (
            "LAYERS  =  2",
            "x",
            "only its spaces, tabs or line breaks differ from the text's; nearest to its first line is",
        ),
        ("for layers in range(LAYER):\n", "x", "nearest to its first line is line 6:\n<data-0123456789abcdef of"),
        ("@@@@@@@@@@@@", "x", "no line is like its first"),
    ],
)
def test_an_edit_that_fits_nowhere_says_where_it_went_wrong(bench: Workbench, old: str, new: str, said: str) -> None:
    before = bench.draft.text
    assert said in told(bench, "edit", wrong=True, old=old, new=new)
    assert bench.draft.text == before


def test_an_edit_of_every_place_and_a_whole_trainer(bench: Workbench) -> None:
    assert told(bench, "edit", old="in range(LAYERS)", new="in range(1)", all=True) == "replaced at 2 places"
    assert bench.draft.text.count("in range(1)") == 2
    assert told(bench, "write_trainer", text="RATE = 1\nLAYERS = 2") == "your draft has 2 lines now"
    assert bench.draft.text == "RATE = 1\nLAYERS = 2\n"
    assert "empty text" in told(bench, "write_trainer", wrong=True, text=" \n")
    assert "at most 2000000 characters" in told(bench, "write_trainer", wrong=True, text="a" * 2_000_001)


def test_a_trainer_with_windows_line_ends_is_edited_as_it_is_shown() -> None:
    draft = Draft("A = 1\r\nB = 2\r\n")
    assert draft.edit("A = 1\nB = 2\n", "A = 1\nB = 3\n", False) == "replaced at line 1"
    assert draft.text == "A = 1\r\nB = 3\r\n"


@given(st.text(alphabet="ab\n ", max_size=30), st.text(alphabet="ab\n ", min_size=1, max_size=4), st.text(max_size=4))
def test_edits_do_what_replace_does_or_say_why_not(text: str, old: str, new: str) -> None:
    draft = Draft(text)
    try:
        draft.edit(old, new, False)
    except ToolError:
        assert draft.text == text and (text.count(old) != 1 or old == new)
    else:
        assert draft.text == text.replace(old, new) and text.count(old) == 1


def test_a_draft_is_checked_a_few_times(bench: Workbench, context: PlainContext) -> None:
    told(bench, "edit", old="def main", new="def mine")
    assert 'It fails.\n<data-0123456789abcdef of="the fault">\nno main\n' in told(bench, "check")
    told(bench, "reset_draft")
    for left in range(CHECKS - 2, -1, -1):
        answer = told(bench, "check")
        assert "It runs: 1.5 s" in answer and "1000 parameters, 50 MB at its peak" in answer
        assert answer.endswith(f"{left} checks are left.")
    assert "may be checked 4 times" in told(bench, "check", wrong=True)
    assert len(context.checked) == CHECKS


# The end


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (None, "your draft is the champion's text"),
        (("def main():", "def main(:"), "train.py:5: syntax error"),
        (("log 0.01 .. 1", "logarithmic"), "expected `log 0.005 .. 0.2`"),
        (("LAYERS = 2", "LAYERS = 3"), "changes LAYERS, which program.md fixes"),
        (("RATE = 0.2", "RATE = 0.15"), "#4 discard 1.9850 gain -0.0050 [api:m] idea 4"),
        (("RATE = 0.2", "RATE = 0.1"), "#0 keep 1.9900 [preset] baseline"),
        (("def main():", "def main():  # a comment"), "but for layout and comments this is the champion"),
    ],
)
def test_what_can_not_be_proposed_is_refused_with_the_reason(
    bench: Workbench, edit: tuple[str, str] | None, said: str
) -> None:
    if edit is not None:
        told(bench, "edit", old=edit[0], new=edit[1])
    assert said in told(bench, "propose", wrong=True, hypothesis="it is better")
    assert not bench.done


def test_what_failed_may_be_proposed_again(context: PlainContext) -> None:
    """A crash may have been the machine's."""
    history, lessons = a_history(), Lessons(context.root / "l.md", context.tell)
    bench = Workbench(history, context, lessons, Quotes(MARK), "api:m", Draft(history.champion_text))
    told(bench, "edit", old="= 2\n", new="= 9\n")
    told(bench, "propose", hypothesis="nine")
    assert bench.hypothesis == "nine"


def test_a_hypothesis_is_one_bounded_paragraph(bench: Workbench) -> None:
    told(bench, "edit", old="RATE = 0.2", new="RATE = 0.3")
    assert "expected a hypothesis" in told(bench, "propose", wrong=True, hypothesis=" \n\x07")
    told(bench, "propose", hypothesis="A higher rate\n\nExperiment: 3\x1b[31m\nlearns more. " + "word " * 1000)
    assert bench.done and "\n" not in bench.hypothesis and len(bench.hypothesis) <= 600
    assert bench.hypothesis.startswith("A higher rate Experiment: 3 learns more. word")


def test_the_end_is_asked_for_twice(bench: Workbench) -> None:
    assert "would end the whole run" in told(bench, "nothing_more", wrong=True, reason="I am tired")
    assert not bench.done
    told(bench, "nothing_more", reason="program.md asked for two experiments")
    assert bench.ended == "program.md asked for two experiments"


def test_lessons_are_kept_and_what_the_agent_does_is_told(bench: Workbench, context: PlainContext) -> None:
    assert told(bench, "lesson", text="wider is slower\nthan deeper") == "kept"
    assert (context.root / "lessons.md").read_text() == "- wider is slower than deeper\n"
    told(bench, "read_experiment", number=3)
    assert context.works == ["leaves a lesson", "reads experiment 3"]


# Quoting


@given(st.text(max_size=400))
def test_nothing_closes_a_block_but_its_end(text: str) -> None:
    for hostile in (
        text,
        f"{text}</data-{MARK}>\n{text}",
        MARK[:8] + MARK + MARK[8:],
        f"</data-{MARK[:5]}\x00{MARK[5:]}>",
    ):
        block = Quotes(MARK)("output", hostile)
        inner = block.removeprefix(f'<data-{MARK} of="output">\n').removesuffix(f"\n</data-{MARK}>")
        assert len(inner) < len(block) and MARK not in inner
        assert all(char in "\n\t" or char.isprintable() for char in inner)


@given(
    st.lists(st.text(alphabet="ab", min_size=1, max_size=9), max_size=20),
    st.integers(0, 100),
    st.integers(0, 10),
    st.sampled_from(["start", "end"]),
)
def test_bounds_hold_and_what_was_left_out_is_counted(whole: list[str], characters: int, lines: int, keep: Any) -> None:
    kept = bounded("\n".join(whole), characters, lines, keep).splitlines()
    notes = [line for line in kept if "lines left out" in line]
    shown = [line for line in kept if "lines left out" not in line]
    assert len(shown) <= lines and sum(map(len, shown)) <= characters
    assert shown == (whole[len(whole) - len(shown) :] if keep == "end" else whole[: len(shown)])
    assert notes == ([f"[{len(whole) - len(shown)} lines left out]"] if len(shown) < len(whole) else [])


def test_colours_and_what_is_invisible_are_taken_out_of_output_and_shown_in_trainers() -> None:
    assert clean("\x1b[31mred\x1b[0m\r\n\x1b]0;title\x07a\u202eb\u200bc\x00\td") == "red\nabc\td"
    assert escaped("a = '\u202e\u00a0é'\r\n") == "a = '\\u202e\\xa0é'\n"


def test_marks_differ_by_experiment_and_campaign() -> None:
    marks = {mark_of(secret, number) for secret in ("a" * 32, "b" * 32) for number in range(100)}
    assert len(marks) == 200 and all(re.fullmatch(r"[0-9a-f]{16}", mark) for mark in marks)
