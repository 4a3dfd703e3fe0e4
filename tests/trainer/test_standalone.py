"""A trainer's `restore` cut out of its text: what comes along, what stays behind, what can't be cut out."""

from __future__ import annotations

import ast
import sys
from types import ModuleType
from typing import Any

import pytest

import backends
from core.campaign.model_card import ENTRY
from core.trainer.standalone import OURS, NotStandaloneError, standalone

TRAINER = '''"""A trainer."""
from __future__ import annotations
import os, math; SIZE = 3
import json as js
from backends.base import batch_shape
from core.records import Facts, UserError
from core.trial import join

# What is looked up.
TABLE = {"a": SIZE}
TABLE["b"] = 4
UNUSED = batch_shape(1, 1, 1)
try:
    from no_such_package import fast
except ImportError:
    fast = None


def used(value):
    return math.sqrt(value) + TABLE["b"]


def main():
    join()


@staticmethod
def restore(weights, facts: Facts):
    if fast is not None or facts.seed < 0:
        raise UserError("no")
    return used(16)


if __name__ == "__main__":
    main()
'''
PLAIN = "from train import restore\n\n\ndef load():\n    return restore\n"


def names(text: str) -> set[str]:
    return {
        name.id if isinstance(name, ast.Name) else name.name
        for node in ast.parse(text).body
        for name in (node.targets if isinstance(node, ast.Assign) else [node])
        if isinstance(name, (ast.Name, ast.FunctionDef, ast.ClassDef))
    }


def imported(text: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return {name.partition(".")[0] for name in found}


def test_what_restore_rests_on_comes_along_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    text = standalone(PLAIN, TRAINER)
    assert names(text) == {"SIZE", "TABLE", "used", "restore", "load", "Facts", "UserError"}
    assert imported(text) == {"__future__", "dataclasses", "math", "no_such_package", "os"}  # os shares a line
    assert "# What is looked up.\nTABLE = " in text and "@staticmethod\ndef restore" in text
    model: Any = ModuleType("model")
    monkeypatch.setitem(sys.modules, "model", model)  # dataclasses look their module up
    exec(compile(text, "model.py", "exec"), model.__dict__)
    facts = model.Facts(vocabulary=2, bos=0, seed=1, backend="b", device="cpu", sequence_length=4)
    assert model.load()({}, facts) == 8


@pytest.mark.parametrize("backend", backends.names())
def test_every_reference_trainer_can_be_cut_out(backend: str) -> None:
    trainer = backends.trainer_path(backend).read_text(encoding="utf-8")
    text = standalone(ENTRY.format(backend=backend), trainer)
    compile(text, "model.py", "exec")
    assert not imported(text) & {*OURS, "train"}
    assert {"restore", "load", "ExportedModel", "to_device", "to_numpy"} <= names(text)
    assert not names(text) & {"main", "Stepper", "MuonAdamW", "join", "batch_shape"}


@pytest.mark.parametrize(
    ("trainer", "reason"),
    [
        (
            "def load():\n    pass\n\n\ndef restore(weights, facts):\n    return load\n",
            "load is defined in two modules",
        ),
        ("def restore(weights, facts):\n    from core.records import Facts\n", "core.records is imported within"),
        ("import core.records\n\n\ndef restore(weights, facts):\n    core.records\n", "core.records is imported whole"),
        ("from core import records\n\n\ndef restore(w, f):\n    records\n", "records of core is a module"),
        ("def main():\n    pass\n", "restore of train is a module"),
    ],
)
def test_what_cannot_be_cut_out_is_said(trainer: str, reason: str) -> None:
    with pytest.raises(NotStandaloneError, match=reason):
        standalone(PLAIN, trainer)
