"""Every backend's fixed side has the functions of the protocol, with its names and signatures."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import backends
from backends.base import Backend

FRAMEWORKS = ("torch", "jax", "jaxlib", "flax", "optax", "mlx")
PROTOCOL = {name: value for name, value in vars(Backend).items() if inspect.isfunction(value) and name[0] != "_"}


def shape_of(function: object) -> list[tuple[str, object, object, object]]:
    """Names, kinds, defaults and annotations of the parameters and of what is returned."""
    assert inspect.isfunction(function)
    signature = inspect.signature(function)
    parameters = [p for p in signature.parameters.values() if p.name != "self"]
    told = [(p.name, p.kind, p.default, p.annotation) for p in parameters]
    return [*told, ("return", None, None, signature.return_annotation)]


def test_there_is_something_to_compare():
    assert {"missing", "environment", "resolve", "seed", "losses", "logits_at"} <= set(PROTOCOL)


@pytest.mark.parametrize("backend", backends.names())
def test_a_backend_has_the_protocols_functions(backend: str):
    module = backends.get(backend)
    for name, expected in PROTOCOL.items():
        assert shape_of(getattr(module, name)) == shape_of(expected), f"{backend}.{name}"
        assert getattr(module, name).__doc__, f"{backend}.{name} says nothing"


@pytest.mark.parametrize("backend", backends.names())
def test_a_backends_folder_has_the_same_files(backend: str):
    folder = backends.trainer_path(backend).parent
    assert {path.name for path in folder.glob("*.py")} == {"__init__.py", "backend.py", "train.py"}


@pytest.mark.parametrize("backend", backends.names())
def test_a_backends_module_loads_no_framework(backend: str, tmp_path: Path):
    code = (
        f"import sys, pathlib, backends; b = backends.get({backend!r}); b.missing();"
        f"folder = pathlib.Path({str(tmp_path)!r});"
        f"b.environment(folder, folder, 'cpu');"
        f"print(*({{*{FRAMEWORKS!r}}} & set(sys.modules)))"
    )
    root = Path(backends.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=root, timeout=60, capture_output=True, text=True
    )
    assert done.stdout.split() == []
