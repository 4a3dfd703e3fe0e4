"""How large a trainer is."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import backends
from core.trainer.fingerprint import nodes

CODE = "def main(rate):\n    if rate > 0.5:\n        rate = -rate * 2\n    return rate\n"


@pytest.mark.parametrize(
    "same",
    [
        CODE.replace("    ", "  "),
        "# a comment\n" + CODE.replace("\n    return", "  # tune: log 1 .. 2\n\n    return"),
        CODE.replace("main(rate):", 'main(rate):\n    """Says at length what it does."""'),
        '"""A module."""\n' + CODE,
        CODE.replace("rate", "learning_rate_of_the_whole_model"),
        CODE.replace("-rate * 2", "(-rate) * (2)"),
        CODE.replace("0.5", "0.123456"),
        CODE.replace("    return", '    "a comment in a string"\n    return'),
    ],
)
def test_layout_names_values_and_notes_do_not_count(same: str) -> None:
    assert same != CODE and nodes(same) == nodes(CODE)


def test_a_line_of_code_is_about_nine_nodes() -> None:
    line = "    x = x + self.attn(norm(x), ve, cos_sin, window)\n"
    text = "def f(self, x, ve, cos_sin, window):\n" + line
    one, two = nodes(text), nodes(text + line)
    assert one is not None and two is not None and 9 <= two - one <= 14


def test_code_that_is_packed_into_a_constant_is_no_smaller() -> None:
    body = "".join(f"a{i} = b{i} + {i} * c\n" for i in range(50))
    plain = nodes(body)
    assert plain is not None
    number = int.from_bytes(body.encode(), "big")
    for packed in (f"exec({body!r})", f"exec({body.encode()!r})", f"exec(({number:#x}).to_bytes({len(body)}, 'big'))"):
        found = nodes(packed)
        assert found is not None and found > 0.4 * plain, packed[:30]


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["x = 1", "y = x + 2", "for i in x: y = i", "pass"]), min_size=1, max_size=8), st.data()
)
def test_taking_a_statement_out_makes_it_smaller(lines: list[str], data: st.DataObject) -> None:
    left = lines.copy()
    left.pop(data.draw(st.integers(0, len(lines) - 1)))
    before, after = nodes("\n".join(lines)), nodes("\n".join(left))
    assert before is not None and after is not None and after < before


@pytest.mark.parametrize("text", ["def (", "x = " + "(" * 5000 + ")" * 5000, "\0"])
def test_what_is_no_python_has_no_size(text: str) -> None:
    assert nodes(text) is None


def test_reference_trainers() -> None:
    sizes = {path.parent.name: nodes(path.read_text(encoding="utf-8")) for path in _trainers()}
    assert sizes["numpy"] is not None and sizes["numpy"] < 300
    assert all(size is not None and 3000 < size < 5000 for name, size in sizes.items() if name != "numpy"), sizes


def _trainers() -> list[Path]:
    return sorted(Path(backends.__file__).parent.glob("*/train.py"))
