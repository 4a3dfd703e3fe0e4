"""What a coding agent's command may use: variables, a home, what it may read. Masks its secrets in texts."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from core.agents.command.command_line import Command
from core.records import UserError
from core.sandbox import paths, tier
from core.sandbox.environment import scrubbed
from core.sandbox.policy import SandboxPolicy
from core.system.files import homes, user_path

FILE_BYTES = 4 * 2**30  # of one file that it writes
_SECRET_CHARACTERS = 8  # a shorter value would be found in ordinary text


@dataclass(frozen=True)
class CommandEnvironment:
    """`variables` names variables of this process that the command gets; `home` is the user's folder for it."""

    command: Command
    variables: tuple[str, ...] = ()
    read: tuple[Path, ...] = ()
    home: Path | None = None

    def environ(self, private: Path) -> dict[str, str]:
        """All environment variables of the command. `make_home` has prepared the folder `private`."""
        home = self._home(private)
        own = {"HOME": home, "USERPROFILE": home, "NO_COLOR": "1"}
        if sys.platform == "win32":
            own |= {"APPDATA": rf"{home}\AppData\Roaming", "LOCALAPPDATA": rf"{home}\AppData\Local"}
        named = {name: os.environ[name] for name in self.variables if name in os.environ}
        scrubbed_ones = scrubbed(temporary(private), own)
        scrubbed_ones["PATH"] = self._path(scrubbed_ones.get("PATH", os.defpath))
        return {**scrubbed_ones, **named}

    def policy(self, work: Path, private: Path, campaign: Path, also_read: Iterable[Path] = ()) -> SandboxPolicy:
        """Reads the system and its own program, writes its folders, uses the network. Hides corpora and campaign."""
        return SandboxPolicy(
            read=(*self._reads(), *also_read),
            write=(work, private) if self.home is None else (work, private, self.home),
            devices=paths.kernel_devices(),
            hidden=(campaign, *paths.corpora()),
            listed=paths.package_folders(),
            network=True,
            file_bytes=FILE_BYTES,
        )

    def make_home(self, private: Path) -> None:
        """Makes a home and a folder for temporary files. Links the folder of a login, such as ~/.claude, into it."""
        temporary(private).mkdir()
        (private / "home").mkdir()
        if self.home is not None and _is_login(self.home):
            link = private / "home" / self.home.name
            try:
                link.symlink_to(self.home, target_is_directory=True)
            except OSError as error:  # Windows, without the right to make links
                raise UserError(
                    f"{self.home.name} can't be linked into a home for the command ({error.strerror}); name a whole "
                    "home by --command-home instead"
                ) from error

    def masked(self, text: str) -> str:
        """The text with each value of a variable replaced by the variable's name."""
        for name, value in self._secrets():
            text = text.replace(value, f"[{name}]")
        return text

    def secret_in(self, text: str) -> str | None:
        """The name of the first variable whose value is in the text."""
        return next((name for name, value in self._secrets() if value in text), None)

    def _reads(self) -> tuple[Path, ...]:
        return (*paths.system(), *paths.tools(), *paths.python(), *self.command.reads, *self.read)

    def _path(self, path: str) -> str:
        """PATH without folders that it can't read: their programs would hide others. This Python's folder is last."""
        folders = path.split(os.pathsep)
        if tier.here().enforced:
            roots = {root.resolve() for root in (*self._reads(), *([self.home] if self.home else []))}
            above = {folder: {Path(folder).resolve(), *Path(folder).resolve().parents} for folder in folders if folder}
            folders = [folder for folder in above if roots & above[folder]]
        return os.pathsep.join(dict.fromkeys([*folders, str(Path(sys.executable).parent)]))

    def _secrets(self) -> list[tuple[str, str]]:
        values = [(name, os.environ.get(name, "")) for name in self.variables]
        return sorted(((n, v) for n, v in values if len(v) >= _SECRET_CHARACTERS), key=lambda one: -len(one[1]))

    def _home(self, private: Path) -> str:
        return str(private / "home" if self.home is None or _is_login(self.home) else self.home)


def command_environment(
    command: Command, variables: tuple[str, ...], read: Iterable[str | Path], home: str | Path | None
) -> CommandEnvironment:
    """The environment of these options. Raises UserError for an unset variable and a missing path."""
    if unset := [name for name in variables if name not in os.environ]:
        raise UserError(
            f"--command-env names {', '.join(unset)}, which is not set; set it first: export {unset[0]}=..."
        )
    readable = tuple(user_path(path, "--command-read").absolute() for path in read)
    if missing := [path for path in readable if not path.exists()]:
        raise UserError(f"--command-read names {missing[0]}, which is not there")
    return CommandEnvironment(command, variables, readable, None if home is None else _checked_home(Path(home)))


def temporary(private: Path) -> Path:
    """The folder for temporary files. TMPDIR alone tells the command's processes from others, so it is its own."""
    return private / "temporary"


def _checked_home(given: Path) -> Path:
    home = user_path(given, "--command-home").resolve()
    if not home.is_dir():
        raise UserError(f"--command-home names {given}, which is no folder; make it first: mkdir {given}")
    if home in (own := homes()):
        raise UserError(
            f"--command-home {given} would give the command all of your files; make a folder for it, log in there once "
            f"(HOME={own[0] / 'agent-home'} claude), and name that"
        )
    return home


def _is_login(home: Path) -> bool:
    """Whether the folder belongs into a home, as ~/.claude does, or is a home itself."""
    return home.name.startswith(".")
