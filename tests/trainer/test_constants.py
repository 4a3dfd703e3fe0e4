"""Reads, writes and fingerprints trainers' constants."""

from __future__ import annotations

import ast
import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import backends
from core.records import UserError
from core.trainer.check import check
from core.trainer.constants import Tunable, read_constants, read_tunables, write_constants
from core.trainer.fingerprint import fingerprint
from core.trainer.literals import literal

TEXT = '''"""A trainer."""
import math

# tune: this line is prose, as no code stands before it
MATRIX_LR = 0.04  # tune: log 0.005 .. 0.2; of Muon
OFFSET = -1.5  # tune: linear -2 .. 2
DEPTH: int = 4  # tune: int 2 .. 12
TOTAL_BATCH_SIZE = 2**13  # tune: log int 1024 .. 65536
WINDOW_PATTERN = "SSSL"  # tune: one of "L", "SL", "SSSL"
ADAM_BETAS = (0.8, 0.95)  # tune: one of (0.8, 0.95), (0.9, 0.95)
USE_BIAS = False  # tune: one of True, False
LAYERS = (
    1,  # not a tune comment
    2,
)  # tune: one of (1, 2), (2, 1)
SEED = 7  # a plain comment
DERIVED = MATRIX_LR * 2
smååll = "ä"; WIDE = "öäü" ; LAST = 3  # tune: int 1 .. 9


def main():
    MATRIX_LR = 1.0
    return MATRIX_LR
'''


def test_read() -> None:
    found = read_tunables(TEXT)
    assert found["MATRIX_LR"] == Tunable(name="MATRIX_LR", value=0.04, low=0.005, high=0.2, log=True)
    assert found["OFFSET"] == Tunable(name="OFFSET", value=-1.5, low=-2.0, high=2.0)
    assert found["DEPTH"] == Tunable(name="DEPTH", value=4, low=2.0, high=12.0, integer=True)
    assert found["TOTAL_BATCH_SIZE"] == Tunable(
        name="TOTAL_BATCH_SIZE", value=8192, low=1024.0, high=65536.0, log=True, integer=True
    )
    assert found["WINDOW_PATTERN"].choices == ("L", "SL", "SSSL")
    assert found["ADAM_BETAS"].choices == ((0.8, 0.95), (0.9, 0.95))
    assert found["USE_BIAS"].choices == (True, False)
    assert found["LAYERS"].value == (1, 2)
    assert found["LAST"].value == 3
    order = "MATRIX_LR OFFSET DEPTH TOTAL_BATCH_SIZE WINDOW_PATTERN ADAM_BETAS USE_BIAS LAYERS LAST"
    assert list(found) == order.split()


def test_constants_are_those_in_capitals_with_literal_values() -> None:
    values = read_constants(TEXT)
    assert values["SEED"] == 7
    assert values["WIDE"] == "öäü"
    assert "DERIVED" not in values
    assert "smååll" not in values


def test_write_changes_only_the_literals() -> None:
    new = write_constants(
        TEXT, {"MATRIX_LR": 0.031, "TOTAL_BATCH_SIZE": 4096, "LAYERS": (2, 1), "WIDE": "x", "LAST": 5, "SEED": -8}
    )
    expected = (
        TEXT.replace("MATRIX_LR = 0.04", "MATRIX_LR = 0.031")
        .replace("2**13", "4096")
        .replace("(\n    1,  # not a tune comment\n    2,\n)", "(2, 1)")
        .replace('"öäü"', '"x"')
        .replace("LAST = 3", "LAST = 5")
        .replace("SEED = 7", "SEED = -8")
    )
    assert new == expected


def test_write_leaves_a_value_that_is_equal_as_it_is_written() -> None:
    assert write_constants(TEXT, {"TOTAL_BATCH_SIZE": 8192, "MATRIX_LR": 0.04}) == TEXT


def test_write_keeps_a_float_a_float() -> None:
    assert "MATRIX_LR = 1.0  #" in write_constants(TEXT, {"MATRIX_LR": 1})


@pytest.mark.parametrize("newline", ["\r\n", "\r", "\n"])
def test_write_with_other_line_ends(newline: str) -> None:
    text = newline.join(["é = 1", "A = 1  # é", "B = 'x'  # tune: one of 'x', 'y'", ""])
    assert write_constants(text, {"A": 22, "B": "y"}) == text.replace("A = 1 ", "A = 22 ").replace("B = 'x'", 'B = "y"')


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("A = 1  # tune: int 5 .. 2", "rises"),
        ("A = 1  # tune: log int 0 .. 8", "above 0"),
        ("A = 1  # tune: int 0.5 .. 2", "whole ends"),
        ("A = 1.5  # tune: int 0 .. 2", "whole number"),
        ("A = 'x'  # tune: linear 0 .. 2", "needs a number"),
        ("A = True  # tune: linear 0 .. 2", "needs a number"),
        ("A = 1  # tune: 0 .. 2", "expected `log"),
        ("A = 1  # tune: maybe", "expected `log"),
        ("A = 1  # tune: log x .. 2", "'x' is no number"),
        ("A = 1  # tune: one of 1", "two or more"),
        ("A = 1  # tune: one of 1, 1", "two or more"),
        ("A = 1  # tune: one of 1, 1.0", "two or more different"),
        ("A = 0.0  # tune: one of 0.0, -0.0", "two or more different"),
        ("A = (1, 2)  # tune: one of (1, 2), (1.0, 2)", "two or more different"),
        ("A = 0.0  # tune: linear -1e308 .. 1e308", "expected a range of less than 8.9e307, not -1e+308 .. 1e+308"),
        ("A = 1  # tune: int 0 .. 2**53", "within 2**45"),
        ("A = 1  # tune: int 1 .. 2**1500", "'2**1500' is no number"),
        (f"A = {2**4096:#x}  # tune: int 1 .. 2", "is a literal, not an integer of more than 2048 bits"),
        ("A = (2**64)**1024  # tune: int 1 .. 2", "is a literal, not an integer of more than 2048 bits"),
        ("A = 1  # tune: one of 1, os.remove", "expected literals"),
        ("A = f(1)  # tune: int 1 .. 2", "is a literal"),
        ("A = [1]  # tune: one of 1, 2", "is a literal"),
        ("A = 9**9**9  # tune: int 1 .. 2", "is a literal"),
        ("if A:  # tune: int 1 .. 2\n    pass", "stands behind a module-level"),
        ("A = B = 1  # tune: int 1 .. 2", "stands behind a module-level"),
    ],
)
def test_a_bad_tune_comment_is_told_with_its_line(line: str, said: str) -> None:
    with pytest.raises(UserError, match=r"^train.py:2: ") as error:
        check("\n" + line + "\n")
    assert said in str(error.value)


def test_a_tunable_assigned_twice_is_refused() -> None:
    with pytest.raises(UserError, match="train.py:2: A is assigned twice"):
        read_tunables("A = 1  # tune: int 1 .. 2\nA = 2  # tune: int 1 .. 2\n")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"NOT_THERE": 1}, "no module-level constant NOT_THERE: there are ADAM_BETAS, DEPTH"),
        ({"DERIVED": 1}, "expected a literal to replace"),
        ({"DEPTH": math.nan}, "finite"),
        ({"DEPTH": 2**20_000}, "at most 2048 bits, not 20001"),
    ],
)
def test_what_write_refuses(values: dict[str, float], said: str) -> None:
    with pytest.raises(UserError, match=said):
        write_constants(TEXT, values)
    with pytest.raises(UserError, match="assigned on lines 1, 2"):
        write_constants("A = 1\nA = 2\n", {"A": 3})


@pytest.mark.parametrize(
    "text",
    [
        "x = (\n", "return 1\n", "x = '\0'\n", "def f():\n\treturn 1\n        return 2\n", "(" * 5000, "x = '\udc80'\n",
        "\ufeffx = 1\n", "await x\n", "nonlocal x\n",
    ],
)  # fmt: skip
def test_check_refuses_what_cannot_be_compiled(text: str) -> None:
    with pytest.raises(UserError, match=r"^train\.py"):
        check(text)


def test_a_syntax_error_names_its_line() -> None:
    with pytest.raises(UserError, match=r"^train.py:3: syntax error"):
        check("a = 1\nb = 2\nc = = 3\n")


def test_a_fingerprint_is_of_the_tree_and_the_tune_comments() -> None:
    base = fingerprint(TEXT)
    assert fingerprint(TEXT.replace("import math\n", "import math  # why\n\n\n")) == base
    assert fingerprint(TEXT.replace("of Muon", "of another")) == base  # prose behind the range
    assert fingerprint(TEXT.replace("log 0.005 .. 0.2", "log 0.005 ..  0.2")) == base
    assert fingerprint(TEXT.replace("0.04", "0.041")) != base
    assert fingerprint(TEXT.replace(".. 0.2", ".. 0.3")) != base
    assert fingerprint(TEXT.replace("  # tune: int 2 .. 12", "")) != base
    assert fingerprint("x = 1") != fingerprint("x = 1.0") != fingerprint("x = True")
    assert fingerprint("x = None") != fingerprint("x = ...")
    assert fingerprint("x = ") == fingerprint("x = ") != fingerprint("x = \n")  # no Python: each byte counts


def test_a_fingerprint_does_not_depend_on_the_python_version() -> None:
    # Recorded once; 3.12 added `type_params` and 3.13 changed how `ast.dump` writes empty lists.
    text = "def f(x, *, y=None):\n    '''doc'''\n    return [u'a', b'b', 1j, ...]\nA = 1  # tune: int 1 .. 2\n"
    assert fingerprint(text) == FINGERPRINT


FINGERPRINT = "e3e93d1960680cdd767427b503418be3470b030fe5c35534d974b0df158f9d00"


def test_true_and_1_are_different_choices() -> None:
    assert read_tunables("A = 1  # tune: one of True, 1\n")["A"].choices == (True, 1)


HUGE = 1 << 20_000  # 6021 digits: more than Python writes in decimal


def test_an_integer_that_python_writes_only_in_hex_has_a_fingerprint_and_is_no_constant() -> None:
    text = f"A = {HUGE:#x}\nB = (2**64)**1024\nC = 3\nD = -{HUGE:#x}\nE = (1, {HUGE:#x})\n"
    check(text)
    assert read_constants(text) == {"C": 3}
    assert fingerprint(text) != fingerprint(text.replace(f"{HUGE:#x}", f"{HUGE + 1:#x}"))
    assert write_constants(text, {"C": 4}) == text.replace("C = 3", "C = 4")
    with pytest.raises(UserError, match="A: expected a literal to replace, not an integer of more than 2048 bits"):
        write_constants(text, {"A": 4})


def test_a_sum_of_many_terms_is_no_constant_where_python_can_parse_it_at_all() -> None:
    for terms in (300, 900, 3000):
        with contextlib.suppress(UserError):
            read_constants(f"A = {'+'.join(['1'] * terms)}\nB = 2\n")


@given(
    st.one_of(
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.booleans(),
        st.text(st.characters(exclude_categories=["Cs"])),
        st.tuples(st.floats(-1, 1), st.integers(-5, 5)),
        st.tuples(st.integers()),
    )
)
def test_a_literal_reads_back(value: float | str | bool | tuple[float, ...]) -> None:
    text = f"X = {literal(value)}\n"
    read = read_constants(text)["X"]
    assert read == value
    assert type(read) is type(value)
    assert ast.literal_eval(literal(value)) == value
    assert read_constants(write_constants("X = 0\n", {"X": value}))["X"] == value


@pytest.mark.parametrize("backend", backends.names())
def test_every_reference_trainer_can_be_searched(backend: str) -> None:
    text = backends.trainer_path(backend).read_text(encoding="utf-8")
    check(text)
    found = read_tunables(text)
    assert found
    for name, tunable in found.items():
        new = tunable.choices[-1] if tunable.choices else tunable.low
        assert new is not None
        new = int(new) if tunable.integer and isinstance(new, float) else new
        assert read_constants(write_constants(text, {name: new}))[name] == new
