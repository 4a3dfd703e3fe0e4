"""The campaign's git repository: candidates, their refs, the champion branch and the work tree's trainer.

Runs git's plumbing commands through GitPython: no shell, no hooks, no signing.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Literal

from core.records import TRAINER, UserError
from core.store import git_program
from core.system.files import decode, explained, replacing
from core.system.text import clean

git_program.find()  # first: GitPython reports a git that fails as one that is missing
import git  # noqa: E402

_OURS = ("progress.png", "results.tsv", "lessons.md", ".lessons.md.lock")  # what is written beside the trainer
_ZEROS = "0" * 40
_NAME = re.compile(rb"[0-9a-f]{40}")
_STALE_LOCK_SECONDS = 5.0  # git holds a ref's lock for milliseconds
_TOO_LITTLE = 2**16  # bytes left on a disk
_SMALLEST_INDEX = 32  # bytes: a header and a checksum
_OPTIONS = {
    "core.fsync": "added",  # git's default leaves loose objects and the index to the disk's mercy at a power loss
    "core.hooksPath": os.devnull,
    "core.autocrlf": "false",
    "core.quotePath": "false",
    "i18n.commitEncoding": "utf-8",
    "commit.gpgSign": "false",
    "gc.auto": "0",
}

WorktreeState = Literal["same", "followed", "edited", "elsewhere"]


class GitFailed(UserError):
    """A git command failed: the command, then git's own message."""


class Repo:
    """The repository whose work tree is `root`. Not for use by two threads at once; `close` ends its processes."""

    def __init__(self, root: Path, branch: str) -> None:
        self.root = root.absolute()
        self.branch = branch
        self._dir = self.root / ".git"
        self._git = git.Git(str(self.root))
        # Set outright: a git that called this program (a hook, `git rebase --exec`) has left its own in there.
        self._git.update_environment(
            GIT_DIR=str(self._dir),
            GIT_WORK_TREE=str(self.root),
            GIT_INDEX_FILE=str(self._dir / "index"),
            GIT_OBJECT_DIRECTORY=str(self._dir / "objects"),
        )
        self._entries: tuple[str, list[str]] | None = None  # a commit, and its tree's lines without the trainer's

    @classmethod
    def create(cls, root: Path, branch: str, files: Mapping[str, str], message: str) -> Repo:
        """A new repository with one commit of `files` on `branch`. Writes nothing but `.git`; `root` must exist."""
        repo = cls(root, branch)
        repo._run("check-ref-format", f"refs/heads/{branch}", subject=f"{branch!r} is no name for a branch")
        repo._run("init", "--quiet", "--template=", "--object-format=sha1", f"--initial-branch={branch}")
        repo._run("config", "core.autocrlf", "false")
        lines = [f"100644 blob {repo._store(text)}\t{name}" for name, text in files.items()]
        commit = repo._commit(lines, None, message)
        repo.advance(_ZEROS, commit)
        repo._run("read-tree", commit)
        exclude = repo._dir / "info" / "exclude"
        exclude.parent.mkdir(exist_ok=True)
        exclude.write_text("".join(f"/{name}\n" for name in _OURS), encoding="utf-8")
        return repo

    def close(self) -> None:
        """Ends the process that reads objects. A later call starts a new one."""
        self._git.clear_cache()

    # Reading

    def ref(self, name: str) -> str | None:
        """The commit of a full ref name or any other revision; None if there is none."""
        return self._look_up(f"{name}^{{commit}}")

    def head(self) -> str | None:
        """The branch's commit, wherever HEAD is."""
        return self.ref(f"refs/heads/{self.branch}")

    def experiment(self, number: int) -> str | None:
        return self.ref(f"refs/experiments/{number}")

    def text(self, commit: str) -> str:
        """The trainer at a commit. Raises UserError if the commit is gone."""
        try:
            return str(self._ask_git(self._git.get_object_data, f"{commit}:{TRAINER}")[3].decode("utf-8"))
        except ValueError as error:
            # GitPython guesses at a reason where git ended without an answer, over an object that is damaged.
            reason = str(error).partition(", possible")[0]
            raise UserError(
                f"{self.root}: commit {commit} has no readable {TRAINER}: {reason}; restore .git/objects from a copy "
                "of the campaign's folder (git fsck names what is damaged)"
            ) from None

    def blob(self, commit: str) -> str | None:
        return self._look_up(f"{commit}:{TRAINER}")

    def parent(self, commit: str) -> str | None:
        return self.ref(f"{commit}^")

    def message(self, commit: str) -> str:
        raw = self._ask_git(self._git.get_object_data, commit)[3].decode("utf-8", "replace")
        return str(raw.partition("\n\n")[2])

    def diff(self, old: str, new: str) -> str:
        """The trainer's unified diff between two commits, whatever the person's settings for diffs."""
        return self._run("diff-tree", "-p", "--no-color", old, new, "--", TRAINER)

    def merge_lines(self, base: str, ours: str, theirs: str) -> str | None:
        """`ours` with what `theirs` changed in the lines of `base`; None where their changes touch."""
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / name for name in ("ours", "base", "theirs")]
            for path, text in zip(paths, (ours, base, theirs), strict=True):
                path.write_bytes(text.encode("utf-8", "backslashreplace"))
            command = [git.Git.GIT_PYTHON_GIT_EXECUTABLE or "git", "merge-file", "--stdout", *map(str, paths)]
            status, out, err = self._git.execute(
                command, with_extended_output=True, with_exceptions=False, stdout_as_string=False,
                strip_newline_in_stdout=False, shell=False,
            )  # fmt: skip
        if 0 < status < 128:  # the number of conflicts
            return None
        if status != 0:
            raise GitFailed(f"git merge-file: {clean(str(err)).strip() or f'exit status {status}'}")
        assert isinstance(out, bytes)
        return out.decode("utf-8")

    # Candidates and the branch

    def candidate(self, parent: str, text: str, message: str) -> str:
        """A commit on `parent` with another trainer. Touches no index, no work tree, no ref."""
        if self._entries is None or self._entries[0] != parent:
            lines = [line for line in self._run("ls-tree", parent).splitlines() if line.partition("\t")[2] != TRAINER]
            self._entries = (parent, lines)
        entry = f"100644 blob {self._store(text)}\t{TRAINER}"
        return self._commit([*self._entries[1], entry], parent, message)

    def pin(self, number: int, commit: str, old: str | None = None) -> None:
        """refs/experiments/<number> becomes `commit`; it must have been `old` (None: must not exist)."""
        self._run("update-ref", f"refs/experiments/{number}", commit, old or _ZEROS)

    def advance(self, old: str, new: str) -> None:
        """Moves the branch from `old` to `new`. Raises GitFailed, and moves nothing, if it was elsewhere."""
        self._run("update-ref", "-m", "autoresearch: keep", f"refs/heads/{self.branch}", new, old)

    # The work tree

    def on_branch(self) -> bool:
        """Whether HEAD points to the campaign's branch."""
        try:
            return self._run("symbolic-ref", "--quiet", "HEAD") == f"refs/heads/{self.branch}"
        except GitFailed:
            return False  # detached

    def work_text(self) -> str | None:
        """The trainer in the work tree, None without one. UserError if it is no text."""
        data = self._work_bytes()
        return None if data is None else decode(data, self.root / TRAINER)

    def work_blob(self) -> str | None:
        """Git's name for the work tree's trainer as it would be tried, None without one."""
        data = self._work_bytes()
        return None if data is None else blob_id(_as_tried(data))

    def _work_bytes(self) -> bytes | None:
        try:
            return (self.root / TRAINER).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise explained(error, self.root / TRAINER) from error

    def sync_worktree(self, champion: str, known: Collection[str]) -> WorktreeState:
        """Brings the work tree's trainer and its index entry to the champion's, each unless a person has edited it.

        `known` are blobs of trainers that the two may hold; any other text is a person's and stays.
        """
        if not self.on_branch():
            return "elsewhere"
        wanted, work = self.blob(champion), self.work_blob()
        outcome: WorktreeState = "same"
        if work != wanted:
            if work in known:
                self.write_work(self.text(champion))
                outcome = "followed"
            else:
                outcome = "edited"  # its index entry moves all the same: a commit would undo the champion otherwise
        elif (data := self._work_bytes()) is not None and data != _as_tried(data):
            self.write_work(self.text(champion))
        staged = self._run("ls-files", "--stage", "--", TRAINER).split(" ")
        if len(staged) > 1 and staged[1] != wanted and (staged[1] in known or self._was_champion(staged[1])):
            self._run("update-index", "--cacheinfo", f"100644,{wanted},{TRAINER}")
        return outcome

    def _was_champion(self, blob: str) -> bool:
        """Whether the branch once held this trainer: an index that was locked stays several champions behind."""
        return bool(self._run("log", "-1", "--format=%H", f"--find-object={blob}", f"refs/heads/{self.branch}"))

    def write_work(self, text: str) -> None:
        """Replaces the work tree's trainer in one step."""
        with replacing(self.root / TRAINER, through=self._dir) as file:
            file.write(text.encode())

    # Upkeep

    def fsck(self) -> None:
        """Raises GitFailed if git finds an object damaged, malformed or missing."""
        if damage := self._run("fsck", "--strict", "--no-dangling", "--no-progress"):
            raise GitFailed(damage)

    def tidy(self) -> None:
        """Packs loose objects and refs: thousands of experiments stay a handful of files. Loses nothing."""
        self._run("repack", "-d", "-q")
        self._run("pack-refs", "--all")

    def remove_stale_locks(self) -> list[Path]:
        """Removes lock files of refs that a killed git left behind. Returns the removed paths.

        Only for the holder of the campaign's lock. A lock is stale if it outlasts some seconds on the monotonic clock:
        the wall clock may have been set meanwhile. The index's lock is left alone: a person's `git commit` holds it for
        as long as their editor is open.
        """
        held = self._locks()
        deadline = time.monotonic() + _STALE_LOCK_SECONDS
        while held and time.monotonic() < deadline:
            time.sleep(0.05)
            now = self._locks()
            held = {path: identity for path, identity in held.items() if now.get(path) == identity}
        for path in held:
            path.unlink(missing_ok=True)
        return sorted(held)

    def _locks(self) -> dict[Path, tuple[int, int]]:
        # Moving the branch that HEAD stands for locks HEAD too, for its log.
        heads = self._dir / "refs" / "heads" / f"{self.branch}.lock"
        whole = [self._dir / "HEAD.lock", self._dir / "packed-refs.lock"]
        found: dict[Path, tuple[int, int]] = {}
        for path in [heads, *whole, *(self._dir / "refs" / "experiments").glob("*.lock")]:
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                found[path] = status.st_ino, status.st_mtime_ns
        return found

    # Recovery, for the holder of the campaign's lock

    def pinned(self) -> dict[int, str]:
        """Commits under refs/experiments by number, but for refs that are empty. GitFailed where none can be read."""
        lines = self._run("for-each-ref", "--format=%(objectname) %(refname:lstrip=2)", "refs/experiments")
        pairs = (line.split(" ") for line in lines.splitlines())
        return {int(number): commit for commit, number in pairs if number.isdigit()}

    def broken(self, ref: str) -> bool:
        """Whether the file of a ref is there and holds no commit's name, as a power loss leaves it."""
        try:
            return _NAME.fullmatch((self._dir / ref).read_bytes().strip()) is None
        except OSError:
            return False

    def restore_ref(self, ref: str, commit: str) -> None:
        """Sets a ref that is missing or broken. GitFailed if the commit can't be read."""
        self._run("cat-file", "-e", f"{commit}^{{tree}}", subject=f"commit {commit}")
        if self.broken(ref):
            (self._dir / ref).unlink()
        self._run("update-ref", ref, commit)

    def restore_head(self) -> bool:
        """Points HEAD to the campaign's branch if its file is empty or cut short."""
        head, whole = self._dir / "HEAD", f"ref: refs/heads/{self.branch}".encode()
        with contextlib.suppress(FileNotFoundError):
            now = head.read_bytes().strip()
            if now == whole or not whole.startswith(now):
                return False  # a commit, or another branch of the person's
        with replacing(head, through=self._dir) as file:
            file.write(whole + b"\n")
        return True

    def restore_index(self) -> bool:
        """Reads the index anew from HEAD if its file is missing or cut short."""
        index = self._dir / "index"
        try:
            if index.stat().st_size >= _SMALLEST_INDEX:
                return False
            index.unlink()
        except FileNotFoundError:
            pass
        self._run("read-tree", "HEAD")
        return True

    # Plumbing

    def _look_up(self, expression: str) -> str | None:
        """The object that the expression names; None if there is none. GitFailed where git itself fails."""
        try:
            found: str | bytes = self._ask_git(self._git.get_object_header, expression)[0]
        except ValueError as error:
            if "SHA is empty" in str(error):  # no answer at all: a missing object gets one
                self._git.clear_cache()
                self._run("rev-parse", "--git-dir")
            return None
        return found.decode() if isinstance(found, bytes) else found

    def _ask_git(self, question: Callable[[str], Any], expression: str) -> Any:
        """The answer of git's helper process; of a new one where the last ended on a damaged object."""
        with contextlib.suppress(BrokenPipeError):
            return question(expression)
        self._git.clear_cache()
        try:
            return question(expression)
        except BrokenPipeError:
            self._git.clear_cache()
            self._run("rev-parse", "--git-dir")  # raises with git's own words where it fails at all
            raise GitFailed(f"git cat-file in {self.root} ended before it answered about {expression}") from None

    def _store(self, text: str) -> str:
        # A text that is no valid Unicode fails as a trainer anyway; its record keeps what it was, escaped.
        return self._run("hash-object", "-w", "--stdin", data=text.encode("utf-8", "backslashreplace"))

    def _commit(self, lines: list[str], parent: str | None, message: str) -> str:
        tree = self._run("mktree", data=("\n".join(lines) + "\n").encode())
        onto = ("-p", parent) if parent else ()
        return self._run("commit-tree", tree, *onto, "-F", "-", data=message.encode(), env=self._identity)

    @functools.cached_property
    def _identity(self) -> dict[str, str]:
        """Every commit has an author: the variables that name one where the person has configured nobody."""
        try:
            known = self._run("config", "--get-regexp", r"^user\.(name|email)$")
        except GitFailed:
            known = ""
        values = dict(line.split(" ", 1) for line in known.splitlines() if " " in line)
        return {
            variable: fallback
            for key, fallback in (("name", "autoresearch"), ("email", "autoresearch@localhost"))
            if not values.get(f"user.{key}", "").strip()
            for variable in (f"GIT_AUTHOR_{key.upper()}", f"GIT_COMMITTER_{key.upper()}")
            if not os.environ.get(variable, "").strip()
        }

    def _run(
        self, *arguments: str, data: bytes | None = None, env: dict[str, str] | None = None, subject: str | None = None
    ) -> str:
        options = [item for key, value in _OPTIONS.items() for item in ("-c", f"{key}={value}")]
        command = [git.Git.GIT_PYTHON_GIT_EXECUTABLE or "git", *options, *arguments]
        process: Any = self._git.execute(command, istream=subprocess.PIPE, as_process=True, env=env, shell=False)
        out, err = process.communicate(data if data is not None else b"")
        if process.returncode != 0:
            reason = clean(err.decode("utf-8", "replace")).strip() or f"exit status {process.returncode}"
            # Git gives no reason for a lock that it couldn't write.
            if "No space left" in reason or shutil.disk_usage(self.root).free < _TOO_LITTLE:
                reason += "; free some space and run the same command again"
            raise GitFailed(f"{subject or f'git {arguments[0]} in {self.root}'}: {reason}")
        return str(out.decode("utf-8").removesuffix("\n"))


def _as_tried(data: bytes) -> bytes:
    """A trainer's bytes without a byte order mark, in UTF-8; as they are if they are no text."""
    try:
        return decode(data, TRAINER).encode()
    except UserError:
        return data


def blob_id(data: bytes) -> str:
    """Git's name for a file's bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
