"""Makes .venv with everything that this platform supports, at the versions of constraints.txt.

`make setup` calls it; on Windows `py scripts/setup.py` does the same. Another call installs nothing if nothing has
changed. It ends by saying how to have the command; with --quiet, as `make test` calls it, only if it installed. It uses
the standard library only, prepares no corpus and runs nothing.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")
STAMP = VENV / "setup.stamp"
OWN_FOLDERS = (Path.home() / ".local" / "bin", Path.home() / "bin")  # where a person's own commands lie
OLDEST, NEWEST = (3, 11), (3, 14)
TOOL = "--constraints constraints.txt --torch-backend auto --editable '.[torch,hub]'"
MLX_GLIBC = (2, 35)


def main() -> int:
    if sys.version_info[:2] < OLDEST:
        return fail(
            f"autoresearch needs Python {dotted(OLDEST)} or newer; {sys.executable} is {dotted(sys.version_info[:3])}.",
            "Name another one: make setup PYTHON=python3.12",
        )
    if sys.version_info[:2] > NEWEST:
        say(f"Python {dotted(sys.version_info[:2])} is newer than those that constraints.txt was tested with")
    wanted = fingerprint()
    if PYTHON.exists() and STAMP.exists() and STAMP.read_text(encoding="utf-8") == wanted:
        if "--quiet" not in sys.argv:
            say("ready: nothing has changed", *how_to_have_it())
        return 0
    begun = time.monotonic()
    STAMP.unlink(missing_ok=True)
    try:
        uv = find_uv()
        install(uv)
        compile_bytecode()
    except subprocess.CalledProcessError as error:
        return fail(
            f"this command ended with status {error.returncode}: {' '.join(map(str, error.cmd))}",
            "Its message is above. Fix that and run `make setup` again: it continues from what is installed.",
        )
    STAMP.write_text(wanted, encoding="utf-8")
    say(f"ready after {time.monotonic() - begun:.0f} s", *how_to_have_it())
    return 0


def how_to_have_it() -> list[str]:
    """What to type so that `autoresearch` is a command: in this shell, and in every shell; one line if it is one."""
    command = BIN / ("autoresearch.exe" if os.name == "nt" else "autoresearch")
    if (found := shutil.which("autoresearch")) and Path(found).resolve() == command.resolve():
        return ["try: autoresearch --help"]
    if os.name == "nt":
        return [f"to have the command autoresearch in this shell: {BIN / 'activate'}"]
    shell = Path(os.environ.get("SHELL", "")).name
    script = BIN / f"activate{'.fish' if shell == 'fish' else '.csh' if shell in ('csh', 'tcsh') else ''}"
    lines = [f"to have the command autoresearch in this shell:    source {shlex.quote(str(script))}"]
    if folder := next((one for one in OWN_FOLDERS if str(one) in os.get_exec_path() and one.is_dir()), None):
        lines.append(f"to have it in every shell:    ln -sf {shlex.quote(str(command))} {shlex.quote(str(folder))}/")
    else:
        uv = shutil.which("uv") or str(BIN / "uv")
        lines.append(f"to have it in every shell:    {shlex.quote(uv)} tool install {TOOL}")
    return [*lines, "then: autoresearch --help"]


def fingerprint() -> str:
    """Changes when what would be installed may change."""
    digest = hashlib.sha256()
    for name in ("pyproject.toml", "constraints.txt", "scripts/setup.py"):
        digest.update((ROOT / name).read_bytes())
    digest.update(str(ROOT).encode())  # an editable install names its folder
    return digest.hexdigest()


def find_uv() -> list[str]:
    """The uv on PATH or in the environment, or one fetched into the environment by pip; makes the environment."""
    if uv := shutil.which("uv"):
        if not PYTHON.exists():
            # --seed: pip stays at hand, as in an environment that Python itself makes
            run([uv, "venv", "--quiet", "--clear", "--seed", "--python", sys.executable, str(VENV)])
        return [uv]
    if not PYTHON.exists():
        try:
            run([sys.executable, "-m", "venv", "--clear", str(VENV)])
        except subprocess.CalledProcessError:
            say("Python's venv module failed: on Debian and Ubuntu, `apt install python3-venv` adds its missing part")
            raise
    if subprocess.run([PYTHON, "-m", "uv", "--version"], capture_output=True, check=False).returncode != 0:
        say("fetching uv")
        run([PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "uv"])
    return [str(PYTHON), "-m", "uv"]


def install(uv: list[str]) -> None:
    """Installs this tree, editable, with all extras of the platform."""
    environment = {**os.environ, **pip_sources()}
    command = [*uv, "pip", "install", "--python", str(PYTHON), "--constraint", "constraints.txt"]
    command += ["--editable", f".[{extras()}]"]
    if "UV_FIND_LINKS" in environment or sys.platform == "darwin" or "UV_TORCH_BACKEND" in environment:
        run(command, environment)
        return
    # Without this, Linux gets a CUDA build of gigabytes whatever its device, and Windows never gets one.
    try:
        run([*command, "--torch-backend=auto"], environment)
    except subprocess.CalledProcessError:
        say("no PyTorch build for this device was found; using the registry's default")
        run(command, environment)


def compile_bytecode() -> None:
    """Compiles the installed packages and this tree's, because uv doesn't and a trial can't.

    A trial's sandbox can't write beside the packages, so each of its processes would compile PyTorch's modules again,
    which takes longer than importing them. Templates among the files fail to compile, which does not matter.
    """
    say("compiling bytecode")
    purelib = "import sysconfig; print(sysconfig.get_path('purelib'))"
    folder = subprocess.run([PYTHON, "-c", purelib], capture_output=True, text=True, check=True).stdout.strip()
    command = [str(PYTHON), "-m", "compileall", "-qq", "-j", "0", folder, "core", "backends", "presets"]
    subprocess.run(command, cwd=ROOT, check=False)


def extras() -> str:
    """`all`, or all but MLX where it has no build. That depends on the C library, which pyproject.toml can't say."""
    library, version = platform.libc_ver()
    if sys.platform != "linux" or (library == "glibc" and as_numbers(version) >= MLX_GLIBC):
        return "all"
    here = f"{library or 'another C library'} {version}"
    say(f"no MLX here: its Linux builds need glibc {dotted(MLX_GLIBC)}, this is {here}")
    return "torch,jax,hub,api,dev"


def pip_sources() -> dict[str, str]:
    """pip's configuration for uv, which doesn't read it: local wheels, a mirror, a certificate."""
    found: dict[str, str] = {}
    if links := pip_setting("find-links"):
        found["UV_FIND_LINKS"] = ",".join(links.split())
    if (mirror := pip_setting("index-url")) and not os.environ.get("UV_INDEX_URL"):
        found["UV_DEFAULT_INDEX"] = mirror
    if certificate := pip_setting("cert"):
        found["SSL_CERT_FILE"] = certificate
    return {name: value for name, value in found.items() if name not in os.environ}


def pip_setting(name: str) -> str:
    if value := os.environ.get("PIP_" + name.upper().replace("-", "_")):
        return value
    for python in (PYTHON, sys.executable):
        for section in ("global", "install"):
            got = subprocess.run(
                [python, "-m", "pip", "config", "get", f"{section}.{name}"], capture_output=True, text=True, check=False
            )
            if got.returncode == 0:
                return got.stdout.strip()
    return ""


def run(command: Sequence[str | Path], environment: dict[str, str] | None = None) -> None:
    subprocess.run(command, cwd=ROOT, env=environment, check=True)


def as_numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def say(*lines: str) -> None:
    for line in lines:
        print(f"setup: {line}", file=sys.stderr, flush=True)


def fail(*lines: str) -> int:
    say(*lines)
    return 2


if __name__ == "__main__":
    sys.exit(main())
