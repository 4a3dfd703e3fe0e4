"""Parses `--command`: its words, the path of its program, and the files that the program consists of."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from core.agents.command.workspace import HYPOTHESIS, LESSON
from core.agents.lessons import NAME as LESSONS
from core.records import PROGRAM, TRAINER, UserError
from core.system.files import homes, user_path

PROMPT, PROMPT_FILE = "{prompt}", "{prompt_file}"
_OF_THE_FOLDER = {TRAINER, PROGRAM, LESSONS, HYPOTHESIS, LESSON}
_BATCH = {".cmd", ".bat"}


@dataclass(frozen=True)
class Command:
    """`words` starts with the program's full path; `reads` are the files and folders it needs, as far as paths show."""

    words: tuple[str, ...]
    reads: tuple[Path, ...]

    @property
    def name(self) -> str:
        return Path(self.words[0]).stem

    @property
    def on_stdin(self) -> bool:
        """Whether no word takes the prompt, so that it comes on standard input."""
        return not any(PROMPT in word or PROMPT_FILE in word for word in self.words)

    def filled(self, prompt: str, prompt_file: Path) -> list[str]:
        """The words to run. Placeholders in the prompt itself stay as they are."""
        path = str(prompt_file)
        return [prompt.join(part.replace(PROMPT_FILE, path) for part in word.split(PROMPT)) for word in self.words]


def parse(text: str) -> Command:
    """The command. Raises UserError where there is none, and where its program or a file that it names isn't found."""
    try:
        words = _split(text)
    except ValueError as error:
        raise UserError(f"--command can't be split into words ({error}): {text}") from None
    if not words:
        raise UserError('--agent command needs a command: --command "claude -p {prompt}"')
    words = [str(user_path(word, "--command")) if word.startswith("~") else word for word in words]
    found = shutil.which(words[0])
    if found is None:
        raise UserError(
            f"there is no program {words[0]!r} on the PATH; install it, or give its full path: --command "
            f'"/path/to/{Path(words[0]).name} ..."'
        )
    program = Path(found).absolute()
    if program.suffix.lower() in _BATCH and any(PROMPT in word for word in words):
        # A batch file parses its arguments as commands again (CVE-2024-24576).
        raise UserError(f"{program.name} is a batch file, which takes no prompt safely: leave {PROMPT} out, or use "
                        f"{PROMPT_FILE}; without either the prompt comes on standard input")  # fmt: skip
    named = [Path(word) for word in words[1:] if Path(word).is_absolute() and Path(word).is_file()]
    for word in words[1:]:
        path = Path(word)
        if path.suffix and path.name not in _OF_THE_FOLDER and not path.is_absolute() and path.is_file():
            raise UserError(
                f"the command runs in a folder of its own, where there is no {word}: name it {path.absolute()}"
            )
    return Command((str(program), *words[1:]), tuple(dict.fromkeys([*installation(program), *named])))


def installation(program: Path, depth: int = 3) -> Iterator[Path]:
    """What a program consists of, as far as its path shows: itself, its package, and its interpreters up to `depth`.

    A folder that holds other things too (a home, /opt) is never yielded.
    """
    real = program.resolve()
    yield program
    yield real
    for path in dict.fromkeys((program, real)):
        if _in_bin(path) and (path.parent.parent / "pyvenv.cfg").is_file():
            yield path.parent.parent
    if program.parent.name == "shims" and not _holds_more(program.parent.parent):
        yield program.parent.parent  # pyenv and its like: a shim that looks for the program there
    if (package := _package(program, real)) is not None:
        yield package
    if depth and (interpreter := _interpreter(real)) is not None:
        yield from installation(interpreter, depth - 1)


def _package(program: Path, real: Path) -> Path | None:
    if "node_modules" in real.parts:
        return Path(*real.parts[: real.parts.index("node_modules") + 1])
    if _in_bin(real):
        folder = real.parent.parent
    elif real.parent != program.parent.resolve():  # a link from a folder of programs into the program's own
        folder = real.parent
    else:
        return None
    return None if _holds_more(folder) else folder


def _in_bin(path: Path) -> bool:
    return path.parent.name.lower() in {"bin", "scripts"}


def _holds_more(folder: Path) -> bool:
    home, *above = homes() or (Path(),)
    return len(folder.parts) <= 2 or folder in {home, *above, home / ".local", home / ".local" / "share"}


def _interpreter(script: Path) -> Path | None:
    """The program that `#!` names."""
    try:
        with script.open("rb") as file:
            line = file.readline(512)
    except OSError:
        return None
    if not line.startswith(b"#!"):
        return None
    words = line[2:].decode("utf-8", "replace").split()
    if words and Path(words[0]).name == "env":
        words = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
    found = shutil.which(words[0]) if words else None
    return None if found is None else Path(found).absolute()


def _split(text: str) -> list[str]:
    if sys.platform != "win32":
        return shlex.split(text)
    # Windows: a backslash separates folders and escapes nothing; quotes hold a word together and are removed.
    return [_unquoted(word) for word in shlex.split(text, posix=False)]


def _unquoted(word: str) -> str:
    quoted = len(word) >= 2 and word[0] == word[-1] and word[0] in "\"'"
    return word[1:-1] if quoted else word


def split_names(listed: Iterable[str]) -> tuple[str, ...]:
    """The names in a repeatable option whose values may be comma-separated."""
    return tuple(dict.fromkeys(name.strip() for item in listed for name in item.split(",") if name.strip()))
