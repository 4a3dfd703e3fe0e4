"""Advice to install names a command that works here: the installer that is here, and where this program came from."""

from __future__ import annotations

import json
import shlex
import sys
from importlib import metadata
from pathlib import Path

import pytest

from core.system import install

REQUIRES = [
    "numpy>=2.0",
    "torch>=2.9; extra == 'torch'",
    "nothing>=1; (sys_platform == 'plan9') and extra == 'torch'",
    "mlx[cpu]>=0.31; extra == 'mlx'",
]


class Installed:
    """Stands for the package's metadata."""

    requires = REQUIRES

    def __init__(self, origin: dict[str, object] | None) -> None:
        self._origin = origin

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return None if self._origin is None else json.dumps(self._origin)


@pytest.mark.parametrize(
    ("origin", "extra", "words"),
    [
        ({"dir_info": {"editable": True}}, "hub", ["--editable", "{here}[hub]"]),
        ({"dir_info": {}}, "hub", ["{here}[hub]"]),
        ({"archive_info": {}}, "", ["{here}"]),
        ({"url": "https://nowhere.example/autoresearch.whl"}, "torch", ["torch>=2.9"]),
        ({"url": "file:///no/such/folder"}, "mlx", ["mlx[cpu]>=0.31"]),
        (None, "torch", ["torch>=2.9"]),
        (None, "", ["numpy>=2.0"]),
    ],
)
def test_what_is_named_is_where_this_came_from_or_else_the_packages_themselves(
    origin: dict[str, object] | None, extra: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "a folder"
    here.mkdir()
    if origin is not None:
        origin = {"url": here.as_uri(), **origin}
    monkeypatch.setattr(metadata, "distribution", lambda name: Installed(origin))
    monkeypatch.setattr(install, "_installer", lambda: ["pip"])
    monkeypatch.setattr(install, "_uv", lambda: "")
    assert shlex.split(install.command(extra)) == ["pip", *(word.format(here=here) for word in words)]


@pytest.mark.skipif(sys.platform == "win32", reason="a stand-in for uv as a shell script")
@pytest.mark.parametrize("where", ["path", "beside", "nowhere"])
def test_the_installer_is_named_where_it_lies(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("path", "beside"):
        (tmp_path / name).mkdir()
    if where != "nowhere":
        uv = tmp_path / where / "uv"
        uv.write_text("#!/bin/sh\n")
        uv.chmod(0o755)
    python = str(tmp_path / "beside" / "python")
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setattr(sys, "executable", python)
    words = shlex.split(install.command("torch", "--torch-backend=auto"))
    if where == "nowhere":
        assert words[:4] == [python, "-m", "pip", "install"]
        assert "--torch-backend=auto" not in words
    else:
        first = "uv" if where == "path" else str(tmp_path / "beside" / "uv")
        assert words[:6] == [first, "pip", "install", "--python", python, "--torch-backend=auto"]
