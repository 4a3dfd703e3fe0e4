"""What gets imported: core loads no array framework but NumPy, and what answers at once loads nothing heavy."""

import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import core

ROOT = Path(core.__file__).parent
MODULES = sorted(module.name for module in pkgutil.walk_packages([str(ROOT)], "core."))
FRAMEWORKS = {"torch", "jax", "jaxlib", "mlx", "flax", "tensorflow", "tinygrad", "anthropic", "openai", "httpx2"}
HEAVY = {"git", "matplotlib", "optuna", "scipy", "sqlalchemy", "tiktoken", "rustbpe", "huggingface_hub", "pyarrow"}

# Each module is imported as the first of all of ours, so that a ring of imports can't hide behind an earlier one.
IMPORT_EACH = """
import importlib, json, sys
ours = ("core", "backends", "presets")
for name in sys.argv[1:]:
    for loaded in [loaded for loaded in sys.modules if loaded.partition(".")[0] in ours]:
        del sys.modules[loaded]
    importlib.import_module(name)
print(json.dumps(sorted({loaded.partition(".")[0] for loaded in sys.modules})))
"""


def loaded_by(code: str, *arguments: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after `code`, whose last line prints them."""
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT.parent)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_core_is_what_it_is_thought_to_be() -> None:
    found = {path.relative_to(ROOT.parent).with_suffix("").as_posix() for path in ROOT.rglob("*.py")}
    modules = {name.replace(".", "/") for name in MODULES}
    assert {name.removesuffix("/__init__") for name in found} - {"core"} == modules
    assert {"core/cli", "core/trial/supervisor", "core/data/dataset", "core/agents/search"} <= modules


def test_no_module_of_core_loads_a_framework() -> None:
    loaded = loaded_by(IMPORT_EACH, *MODULES)
    assert {"core", "numpy"} <= loaded
    assert not loaded & FRAMEWORKS


def test_the_registry_and_every_backends_fixed_side_load_no_framework() -> None:
    code = (
        "import sys, json, backends\n"
        "from pathlib import Path\n"
        "for name in backends.names():\n"
        "    backend = backends.get(name)\n"
        "    backend.missing()\n"
        "    backend.environment(Path(sys.argv[1]), Path(sys.argv[1]), 'auto')\n"
        "print(json.dumps(sorted(name.partition('.')[0] for name in sys.modules)))"
    )
    assert not loaded_by(code, str(ROOT.parent / "no-such-cache")) & FRAMEWORKS


@pytest.mark.parametrize("arguments", [["--help"], ["status", "--help"], ["presets"], ["presets", "cpu"], ["status"]])
def test_what_answers_at_once_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys, json\n"
        "from autoresearch import main\n"
        "sys.argv = ['autoresearch', *sys.argv[1:]]\n"
        "try:\n"
        "    main()\n"
        "except SystemExit:\n"
        "    pass\n"
        "print(json.dumps(sorted(name.partition('.')[0] for name in sys.modules)))"
    )
    assert not loaded_by(code, *arguments) & (HEAVY | FRAMEWORKS)
