"""The registry: the one place that knows which backends there are."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import cast

from backends.base import Backend
from core.records import unknown


def names() -> list[str]:
    """Every backend of this installation, whether its framework is there or not."""
    return sorted(path.parent.name for path in Path(__file__).parent.glob("*/backend.py"))


def get(name: str) -> Backend:
    """The backend of that name. Loads no framework. UserError for a name that isn't known."""
    if name not in names():
        raise unknown("backend", name, names(), "set one with --set backend=NAME")
    return cast(Backend, importlib.import_module(f"backends.{name}.backend"))


def trainer_path(name: str) -> Path:
    """The reference trainer that a campaign on this backend starts from."""
    get(name)
    return Path(__file__).parent / name / "train.py"
