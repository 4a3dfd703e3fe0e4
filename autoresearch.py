"""autoresearch from Python: what a notebook or a script needs, and the entry point of the `autoresearch` command.

Names are loaded when they are first used, so that `import autoresearch` costs nothing. docs/python.md has an example.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import presets
    from core import records
    from core.agents import registry as agents
    from core.campaign.campaign import Campaign
    from core.measure.lone_trial import train
    from core.measure.saved import compare
    from core.records import UserError

__all__ = ["Campaign", "UserError", "agents", "compare", "presets", "records", "train"]

HERE = os.path.dirname(os.path.realpath(__file__))  # noqa: PTH120  pathlib takes longer to load than this module
PACKAGES = ("core", "backends", "presets")
MODULES = {"agents": "core.agents.registry", "presets": "presets", "records": "core.records"}
OBJECTS = {
    "Campaign": "core.campaign.campaign",
    "UserError": "core.records",
    "compare": "core.measure.saved",
    "train": "core.measure.lone_trial",
}


class ShadowedPackageError(ImportError):
    """Python finds another package under the name of one of ours."""


def main() -> None:
    """The `autoresearch` command. Ends the process."""
    try:
        check_packages()
        from core.cli.app import main as command_line
    except ShadowedPackageError as error:
        sys.stderr.write(f"autoresearch: {error}\n")
        sys.exit(2)
    command_line()


def check_packages() -> None:
    """ShadowedPackageError unless `core`, `backends` and `presets` are those beside this file."""
    for name in PACKAGES:
        own = os.path.join(HERE, name)  # noqa: PTH118
        found = _places(name)
        if not found:
            raise ShadowedPackageError(f"expected the package {name} at {own}, but it is missing: install it again")
        if own not in map(os.path.realpath, found):
            raise ShadowedPackageError(
                f"Python finds the package {name} at {found[0]} instead of autoresearch's own at {own}: "
                f"{_why_first(name, os.path.dirname(os.path.realpath(found[0])))}"  # noqa: PTH120
            )


def _places(name: str) -> list[str]:
    """The folders of the package, or the file of the module, that Python imports under this name."""
    if (loaded := sys.modules.get(name)) is not None:
        return list(getattr(loaded, "__path__", None) or [getattr(loaded, "__file__", None) or "memory"])
    spec = importlib.util.find_spec(name)
    return [] if spec is None else list(spec.submodule_search_locations or [spec.origin or "memory"])


def _why_first(name: str, folder: str) -> str:
    """Why the package in `folder` comes before ours, and what to do."""
    if name in sys.modules:
        return "it was imported before autoresearch; start a new Python and import autoresearch first"
    listed = [os.path.realpath(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    if "PYTHONPATH" in os.environ and folder in listed:
        without = "in an environment without PYTHONPATH" if os.name == "nt" else "as env -u PYTHONPATH autoresearch"
        return f"PYTHONPATH names its folder; run the command {without}"
    if folder == os.path.realpath(os.curdir):
        return "the current folder comes first; change to another folder, or run python -P -m autoresearch"
    return "its folder comes first on sys.path; install autoresearch in a virtual environment of its own"


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'autoresearch' has no attribute {name!r}; it has {', '.join(__all__)}")
    check_packages()
    if name in MODULES:
        value: Any = importlib.import_module(MODULES[name])
    else:
        value = getattr(importlib.import_module(OBJECTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "main"]


if __name__ == "__main__":
    main()
