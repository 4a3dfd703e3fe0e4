"""The plan of the house: rooms on floors, imports that point down, no circle, and a core that names no backend."""

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import backends

ROOT = Path(__file__).parents[1]
# From the ground up. What stands on one floor is apart: neither imports the other.
FLOORS = (
    ("core.records",),
    ("core.events", "core.system"),
    ("core.data", "backends", "presets"),
    ("core.sandbox", "core.trainer"),
    ("core.trial", "core.store"),
    ("core.agents", "core.measure"),
    ("core.campaign",),
    ("core.cli",),
    ("benchmarks",),
)
FLOOR = {room: number for number, floor in enumerate(FLOORS) for room in floor}
# A trainer imports `join`: the one arrow that points up.
UP = {("backends", "core.trial")}
MOST_ENTRIES, MOST_FLOORS = 12, 9

Import = tuple[str, str]  # the module that imports, what it imports


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {
    module_of(path): path
    for top in ("core", "backends", "presets", "benchmarks")
    for path in sorted((ROOT / top).rglob("*.py"))
}


def room_of(module: str) -> str | None:
    return next((room for room in FLOOR if module == room or module.startswith(room + ".")), None)


def imports_of(module: str) -> Iterator[str]:
    """Every module of ours that it imports, wherever in its text; also what only type checkers import."""
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if room_of(alias.name))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative imports hide where an arrow points"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                if room_of(whole):
                    yield whole if whole in MODULES else str(node.module)


def arrows() -> Iterator[Import]:
    for module in MODULES:
        for imported in imports_of(module):
            yield module, imported


def faults(found: list[Import]) -> list[str]:
    """Arrows that point up or along a floor, but for the one that may."""
    told = []
    for module, imported in found:
        here, there = room_of(module), room_of(imported)
        if here is None or there is None or here == there or (here, there) in UP:
            continue
        if FLOOR[there] >= FLOOR[here]:
            told.append(f"{module} (floor {FLOOR[here]}) imports {imported} (floor {FLOOR[there]})")
    return told


def test_every_module_has_a_room_and_the_house_is_small() -> None:
    rooms = {path.name for path in (ROOT / "core").iterdir() if path.name not in {"__init__.py", "py.typed"}}
    rooms.discard("__pycache__")
    assert len(rooms) <= MOST_ENTRIES, sorted(rooms)
    assert len(FLOORS) <= MOST_FLOORS
    assert [module for module in MODULES if room_of(module) is None and module != "core"] == []


def test_imports_point_down() -> None:
    found = list(arrows())
    assert len(found) > 400  # they were read
    assert faults(found) == []


@pytest.mark.parametrize(
    "arrow",
    [("core.trial.engine", "core.campaign.campaign"), ("core.store.ledger", "core.trial.training"),
     ("core.records", "core.events"), ("core.measure.bench", "core.cli.options")],
)  # fmt: skip
def test_an_arrow_that_points_up_or_along_is_a_fault(arrow: Import) -> None:
    assert len(faults([arrow])) == 1


def test_only_trainers_import_from_the_floor_above() -> None:
    up = {(module, imported) for module, imported in arrows() if (room_of(module), room_of(imported)) in UP}
    assert {imported for _, imported in up} == {"core.trial"}
    assert all(module.endswith(".train") for module, _ in up)


def test_no_modules_import_each_other_in_a_circle() -> None:
    TopologicalSorter(
        {module: {name for name in imports_of(module) if name != module} for module in MODULES}
    ).prepare()  # CycleError names the modules of one


def test_core_names_no_backend() -> None:
    """A backend's name stands in core only in prose: docstrings, comments and messages of several words."""
    named = []
    for module, path in MODULES.items():
        if not module.startswith("core"):
            continue
        named += [
            f"{module}:{node.lineno} {node.value!r}"
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Constant) and node.value in backends.names()
        ]
    named = [one for one in named if not one.startswith("core.trial.weights:")]  # safetensors' word for arrays
    assert named == []


def test_the_page_about_the_architecture_has_these_rooms_and_files_that_exist() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d) \| `([a-z.]+)` \|", page, flags=re.MULTILINE)
    assert {room: int(floor) for floor, room in rows} == FLOOR
    paths = set(re.findall(r"`((?:core|backends|presets|tests)/[\w/.]+)`", page))
    paths |= {f"core/{path}" for path in re.findall(r"`((?:campaign|trial|store|sandbox|trainer|data)/\w+\.py)`", page)}
    assert len(paths) > 20
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []
