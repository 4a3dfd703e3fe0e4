"""The vocabulary: a class name stands for one thing, and no function outgrows a page."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST_LINES = 80  # of a function
# A command's options are its parameters, one or more lines each.
OPTION_LISTS = {"core/cli/run.py: run"}

TREES = {
    path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for top in ("core", "backends", "presets")
    for path in sorted((ROOT / top).rglob("*.py"))
}


def test_a_class_name_stands_for_one_thing() -> None:
    """Files of equal name in backends have equal classes by design: whoever knows one folder knows three."""
    places = defaultdict(set)
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                _, _, file = path.removeprefix("backends/").partition("/")
                places[node.name].add(f"backends/*/{file}" if path.startswith("backends/") and file else path)
    assert len(places) > 150
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_no_function_is_longer_than_a_page() -> None:
    long = {
        f"{path}: {node.name}"
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno + 1 > MOST_LINES
    }
    assert long == OPTION_LISTS
