"""A trainer's `restore` as a file of its own: the statements that it rests on, and those of ours that they import.

Works on texts; runs nothing.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

OURS = ("core", "backends", "presets")
ENTRY, TRAINER = "model", "train"  # the names of the two given texts; an entry imports from `train`


class NotStandaloneError(Exception):
    """The text can't be cut out of its surroundings; says why."""


def standalone(entry: str, trainer: str) -> str:
    """The text `entry` as a module that imports neither the trainer nor any package of autoresearch.

    `entry` has imports from `train`, which stands for the text `trainer`, and from ours, and code that uses them. Each
    name that it uses is followed through the statements that define it. What stands at the trainer's top level and
    defines nothing, such as a call, is taken along; imports come first. NotStandaloneError if two modules define the
    same name, or if one of ours is imported where it can't be followed, such as within a function.
    """
    return _Bundle({ENTRY: entry, TRAINER: trainer}).text()


class _Import(NamedTuple):
    """`import name as other`, or `from source import name as other`."""

    source: str
    name: str
    other: str

    @property
    def local(self) -> str:
        return self.other or (self.name if self.source else self.name.partition(".")[0])

    def __str__(self) -> str:
        return f"{self.name} as {self.other}" if self.other else self.name


@dataclass
class _Statement:
    """A statement at the top level of a module, or several that share a line."""

    lines: str
    nodes: list[ast.stmt]
    binds: set[str] = field(default_factory=set)
    uses: set[str] = field(default_factory=set)
    wanted: bool = False

    def imports(self) -> list[_Import]:
        """What it imports if it does nothing else."""
        found = [_imports(node) for node in self.nodes]
        return [one for imports in found for one in imports] if all(found) else []


class _Bundle:
    """The statements of several modules, and which of them are wanted."""

    def __init__(self, texts: dict[str, str]) -> None:
        self._texts = texts
        self._modules: dict[str, list[_Statement]] = {}
        self._rests_on: dict[str, set[str]] = {}  # modules of ours that a module imports from
        self._imports: set[_Import] = set()  # of everybody else's

    def text(self) -> str:
        """The bundled module."""
        for module in self._texts:
            for one in self._statements(module):
                if not one.imports() and (module == ENTRY or not one.binds):
                    self._want(module, one)
        order = [*TopologicalSorter(self._rests_on).static_order()]
        self._refuse_clashes(order)
        parts = [one.lines for module in order for one in self._modules[module] if one.wanted]
        lines = ["from __future__ import annotations", ""]
        lines += [f"import {one}" for one in sorted(self._imports) if not one.source]
        for source in sorted({one.source for one in self._imports if one.source}):
            names = sorted(str(one) for one in self._imports if one.source == source)
            lines.append(f"from {source} import {', '.join(names)}")
        return "\n".join(lines) + "\n\n\n" + _paragraphs(parts) + "\n"

    def _statements(self, module: str) -> list[_Statement]:
        if module not in self._modules:
            self._modules[module] = _parsed(self._source(module), whole=module == ENTRY)
            self._rests_on[module] = set()
        return self._modules[module]

    def _source(self, module: str) -> str:
        if module in self._texts:
            return self._texts[module]
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            raise NotStandaloneError(f"there is no module {module}")
        return Path(spec.origin).read_text(encoding="utf-8")

    def _want(self, module: str, statement: _Statement) -> None:
        if statement.wanted:
            return
        statement.wanted = True
        for node in statement.nodes:
            if inner := next((one for inner in ast.walk(node) for one in _imports(inner) if _is_ours(one)), None):
                where = f"line {node.lineno} of {module}.py"
                raise NotStandaloneError(f"{inner.source or inner.name} is imported within the statement of {where}")
        for name in sorted(statement.uses):
            self._need(module, name)

    def _need(self, module: str, name: str) -> None:
        for statement in self._statements(module):
            if name not in statement.binds:
                continue
            if not (imports := statement.imports()):
                self._want(module, statement)
            for one in imports:
                if one.local == name:
                    self._follow(module, one)

    def _follow(self, module: str, one: _Import) -> None:
        if not _is_ours(one):
            self._imports.add(one)
        elif not one.source or one.other not in ("", one.name):
            raise NotStandaloneError(f"{one.source or one.name} is imported whole or under another name")
        elif not any(one.name in statement.binds for statement in self._statements(one.source)):
            raise NotStandaloneError(f"{one.name} of {one.source} is a module, or made in a way that can't be followed")
        else:
            self._rests_on[module].add(one.source)
            self._need(one.source, one.name)

    def _refuse_clashes(self, modules: list[str]) -> None:
        owners: dict[str, object] = {}
        for one in sorted(self._imports):
            whole = not one.source and not one.other  # `import a.b` and `import a.c` both define a
            if owners.setdefault(one.local, one.local if whole else one) not in (one, one.local):
                raise NotStandaloneError(f"{one.local} is imported from two places")
        for module in modules:
            for name in {name for one in self._modules[module] if one.wanted for name in one.binds}:
                if owners.setdefault(name, module) != module:
                    raise NotStandaloneError(f"{name} is defined in two modules, one of them {module}")


def _parsed(text: str, *, whole: bool) -> list[_Statement]:
    """A module's statements without its docstring; unless `whole`, also without `if __name__ ...`.

    Nor has it what only type checkers import, whose names no bundle needs.
    """
    lines = text.splitlines()
    found: list[_Statement] = []
    start = end = 0
    for node in ast.parse(text).body:
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        if isinstance(node, ast.If) and _mentions(node.test, "TYPE_CHECKING", *(() if whole else ("__name__",))):
            continue
        first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", ()))])
        if not found or first > end:
            start = first
            while start > 1 and lines[start - 2].startswith("#"):
                start -= 1
            found.append(_Statement("", []))
        end = node.end_lineno or node.lineno
        last = found[-1]
        last.nodes.append(node)
        last.lines = "\n".join(lines[start - 1 : end])
        last.binds |= {*_bound(node)}
        last.uses |= {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
    return found


def _bound(node: ast.stmt) -> Iterator[str]:
    """The names that a statement defines; none for one that is run for what it does, such as a loop or a call."""
    yield from (one.local for one in _imports(node))
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield node.name
    elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        parts = [part for target in targets for part in ast.walk(target)]
        if not any(isinstance(part, (ast.Attribute, ast.Subscript)) for part in parts):
            yield from (part.id for part in parts if isinstance(part, ast.Name))


def _imports(node: ast.AST) -> list[_Import]:
    if isinstance(node, ast.ImportFrom):
        return [_Import(node.module or "", alias.name, alias.asname or "") for alias in node.names]
    if isinstance(node, ast.Import):
        return [_Import("", alias.name, alias.asname or "") for alias in node.names]
    return []


def _is_ours(one: _Import) -> bool:
    return (one.source or one.name).partition(".")[0] in (*OURS, TRAINER)


def _mentions(node: ast.AST, *names: str) -> bool:
    return any(getattr(one, "id", getattr(one, "attr", None)) in names for one in ast.walk(node))


def _paragraphs(parts: list[str]) -> str:
    """Statements, with two empty lines around functions and classes."""
    large = [re.search(r"^(def |class |@|if )", part, re.MULTILINE) is not None for part in parts]
    gaps = ["", *("\n\n\n" if before or after else "\n" for before, after in pairwise(large))]
    return "".join(gap + part for gap, part in zip(gaps, parts, strict=True))
