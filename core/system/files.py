"""Files and disks: the cache's folder, users' texts, files that appear whole or not at all, and the system's errors."""

from __future__ import annotations

import codecs
import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from core.records import UserError

_FULL = 0.05  # of a disk: with less of it free it counts as full
_CACHE_ELSEWHERE = "AUTORESEARCH_CACHE=DIR"
# UTF-32's mark begins with UTF-16's. PowerShell's `>` writes UTF-16, Notepad marks UTF-8.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def cache_root() -> Path:
    """The folder of everything that can be made again. AUTORESEARCH_CACHE overrides the platform's own place."""
    if chosen := os.environ.get("AUTORESEARCH_CACHE"):
        return user_path(chosen, "AUTORESEARCH_CACHE").absolute()
    import platformdirs

    try:
        found = Path(platformdirs.user_cache_dir("autoresearch", appauthor=False))
    except RuntimeError:  # newer versions raise without a home, older ones return a path that begins with ~
        found = Path("~")
    if not found.is_absolute():
        raise UserError(
            "there is no home folder for the cache: HOME is not set, and this user has no entry in the list of users; "
            f"name a folder for it: {_CACHE_ELSEWHERE}"
        )
    return found


# Paths and texts of users


def user_path(text: str | Path, what: str) -> Path:
    """The path that a user gave, with `~` and `~user` expanded. `what` names the option or variable in errors."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UserError(
            f"{what} names {text}, and there is no home folder for {Path(text).parts[0]}; write the path in full"
        ) from None


def homes() -> tuple[Path, ...]:
    """The user's home and every folder above it; empty if HOME is not set and the system knows no home."""
    try:
        home = Path.home().resolve()
    except RuntimeError:
        return ()
    return (home, *home.parents)


def decode(data: bytes, name: object) -> str:
    """The text of a user's file: UTF-8, or UTF-16 or UTF-32 with a byte order mark, which is left out.

    UserError, which begins with `name`, for anything else. Line ends stay as they are.
    """
    encoding = next((encoding for mark, encoding in _MARKS if data.startswith(mark)), "utf-8")
    if encoding == "utf-8" and data.count(0) * 4 > len(data):
        raise UserError(
            f"{name}: expected UTF-8 text, got many NUL bytes, as in UTF-16 without a byte order mark or in a binary "
            "file; save it as UTF-8"
        )
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        known = encoding.removesuffix("-sig").upper()
        raise UserError(
            f"{name}: expected {known} text, but byte {error.start} is not ({error.reason}); save it as UTF-8"
        ) from None


def read_text(path: Path) -> str:
    """The text of a user's file, with "\\n" line ends. UserError if it can't be read, as for `decode`."""
    with os_errors_as_user_errors(path):
        data = path.read_bytes()
    return decode(data, path).replace("\r\n", "\n").replace("\r", "\n")


# Files that appear whole or not at all


@contextlib.contextmanager
def replacing(path: Path, *, through: Path | None = None) -> Iterator[BinaryIO]:
    """A new binary file that replaces `path` when the block ends, and is deleted if the block raises.

    With `through`, a folder of the same file system with a single writer, the new file lies there and is durable before
    it replaces `path`; it always has the same name, so that a killed process leaves nothing that piles up.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    name = f".{path.name}.{secrets.token_hex(8)}.tmp" if through is None else f"{path.name}.partial"
    temporary = (through or path.parent) / name
    try:
        with temporary.open("wb") as file:
            yield file
            if through is not None:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def delete_leftovers(folder: Path) -> None:
    """Deletes the unfinished files of `replacing` in killed processes. Only while no other process writes there."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Writes `data` to `path` as a whole or not at all."""
    with replacing(path) as file:
        # Names of files may be no UTF-8; `json.loads` takes them back.
        file.write(json.dumps(data, ensure_ascii=False, indent=1).encode(errors="surrogatepass"))


def read_json(path: Path) -> dict[str, Any] | None:
    """What `write_json` wrote; None if the file is missing or damaged. UserError if it is there and can't be read."""
    with os_errors_as_user_errors(path):
        try:
            data = parse_json(path.read_bytes())
        except (FileNotFoundError, ValueError):
            return None
    return data if isinstance(data, dict) else None


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text. ValueError if it is none, or is nested too deeply for Python."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def move(source: Path, target: Path) -> None:
    """Moves a file, also to another file system. It gets the rights of a new file, as the umask says."""
    target.touch()
    mode = target.stat().st_mode
    shutil.move(source, target)
    target.chmod(mode)


# Hashes


def digest(*parts: object) -> str:
    """SHA-256 over the JSON of `parts`: the identity of what they decide."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Errors of the system


def is_full(error: OSError) -> bool:
    """Whether the system refused to write for want of space or quota."""
    return error.errno in {errno.ENOSPC, errno.EDQUOT}


def is_filled(folder: Path) -> bool:
    """Whether the folder's disk has next to no space left.

    Call it when all that a failed trial wrote is deleted: if there is space again, the trial had filled the disk.
    """
    usage = shutil.disk_usage(folder)
    return usage.free < _FULL * usage.total


def no_space(where: object) -> UserError:
    """The error that asks for space."""
    return UserError(
        f"no space left for {where}: free some, then run the same command again{_elsewhere(where, '; or {}')}"
    )


def explained(error: OSError, path: object = None) -> UserError:
    """The system's error in one sentence: the path, what the system said, and how to move the cache if it is there.

    `path` is named if the error names none.
    """
    # Of a copy the second file is the one that is written.
    named = (error.filename2 if is_full(error) else None) or error.filename
    where = named if isinstance(named, (str, Path)) else path
    if is_full(error):
        return no_space(where)
    said = error.strerror or str(error) or type(error).__name__
    mend = _elsewhere(where, "; it is in the cache: mend that, or {}")
    if not mend and error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        mend = "; change its rights, or name another path"
    if error.errno == errno.EISDIR:
        mend = "; move it away, or name a file"
    return UserError(f"{where}: {said[0].lower()}{said[1:]}{mend}")


@contextlib.contextmanager
def os_errors_as_user_errors(path: object) -> Iterator[None]:
    """Turns each OSError into the UserError of `explained`. `path` is named if the error names no file."""
    try:
        yield
    except OSError as error:
        raise explained(error, path) from error


@contextlib.contextmanager
def disk_full_as_user_error(folder: Path) -> Iterator[None]:
    """Turns the system's error of a full disk into a UserError. `folder` is named if the error names no file."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        raise explained(error, folder) from error


def _elsewhere(where: object, words: str) -> str:
    """`words` with the setting that moves the cache in them; nothing if `where` is no path in the cache."""
    with contextlib.suppress(UserError, TypeError):
        if Path(str(where)).is_relative_to(cache_root()):
            return words.format(f"choose another folder for it with {_CACHE_ELSEWHERE}")
    return ""


def refuse_occupied(folder: Path, what: str) -> None:
    """UserError unless `folder` is empty, or is missing and can be made. `what` will be written there: "a model"."""
    import tempfile  # each process of a trial imports this module, and takes no time for what only commands need

    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(
                f"{what} needs a new or empty folder; {folder} is not empty: what has something in it stays as it is"
            )
        # Asked now, and not when hours of work are to be written.
        above = next(one for one in folder.absolute().parents if one.exists())
        with tempfile.TemporaryDirectory(dir=above, prefix=".autoresearch-"):
            pass
    except OSError as error:
        raise explained(OSError(error.errno, error.strerror), folder) from error
