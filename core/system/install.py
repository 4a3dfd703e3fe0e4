"""Words the command that installs missing packages into this interpreter, with uv or pip, whichever is here.

It names the checkout or wheel that this program came from, and no index: there `autoresearch` may be somebody else's.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packaging.requirements import Requirement

_NAME = "autoresearch"


def command(extra: str = "", *options_of_uv: str) -> str:
    """The command that installs an extra's packages, or without one those always needed. It works in any folder."""
    words = [*_installer(), *(options_of_uv if _uv() else ()), *_what(extra)]
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def _uv() -> str:
    """uv, on the PATH or beside the interpreter; empty without one."""
    beside = shutil.which("uv", path=str(Path(sys.executable).parent))
    return "uv" if shutil.which("uv") else beside or ""


def _installer() -> list[str]:
    if uv := _uv():
        return [uv, "pip", "install", "--python", sys.executable]
    module = "pip" if importlib.util.find_spec("pip") or not importlib.util.find_spec("uv") else "uv"
    return [sys.executable, "-m", *(["uv", "pip"] if module == "uv" else ["pip"]), "install"]


def _what(extra: str) -> list[str]:
    """The installer's arguments: the checkout or wheel with that extra; if both are gone, the packages themselves."""
    from importlib import metadata  # these are for errors alone, and take long to load
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    which = f"[{extra}]" if extra else ""
    try:
        distribution = metadata.distribution(_NAME)
    except metadata.PackageNotFoundError:
        return ["--editable", f"{Path(__file__).parents[2]}{which}"]
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    url = urlsplit(origin.get("url", ""))
    path = url2pathname(url.path)
    if url.scheme == "file" and Path(path).exists():
        return [*(["--editable"] if origin.get("dir_info", {}).get("editable") else []), f"{path}{which}"]
    from packaging.requirements import Requirement

    every = [Requirement(text) for text in distribution.requires or ()]
    wanted = [one for one in every if _is_for(extra, one)]
    for one in wanted:
        one.marker = None  # it holds here
    return [str(one) for one in wanted]


def _is_for(extra: str, one: Requirement) -> bool:
    if not extra:
        return one.marker is None or one.marker.evaluate({"extra": ""})
    return one.marker is not None and one.marker.evaluate({"extra": extra}) and not one.marker.evaluate({"extra": ""})
