"""The campaign's repository: real git, with a person's settings and habits in the way."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.records import UserError
from core.store.repository import GitFailed, Repo, blob_id

MESSAGE = "wider\n\nExperiment: 1\nAgent: search\n"


def git(root: Path, *arguments: str, data: str | None = None) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, input=data, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repo]:
    root = tmp_path / "campaign"
    root.mkdir()
    made = Repo.create(root, "autoresearch/t", {"program.md": "Go.\n", "train.py": "A = 1\n"}, "Campaign t")
    made.write_work("A = 1\n")
    (root / "program.md").write_text("Go.\n")
    yield made
    made.close()


def head(repo: Repo) -> str:
    commit = repo.head()
    assert commit is not None
    return commit


def test_a_new_repository_is_clean_and_on_its_branch(repo: Repo) -> None:
    assert git(repo.root, "status", "--porcelain") == ""
    assert git(repo.root, "symbolic-ref", "HEAD") == "refs/heads/autoresearch/t"
    assert git(repo.root, "rev-parse", "HEAD") == repo.head()
    assert git(repo.root, "log", "--format=%s") == "Campaign t"
    assert repo.text(head(repo)) == "A = 1\n"
    for name in ("progress.png", "results.tsv"):
        (repo.root / name).write_text("made by export")
    assert git(repo.root, "status", "--porcelain") == ""
    assert list((repo.root / ".git" / "hooks").glob("*")) == []


def test_a_candidate_touches_no_ref_no_index_and_no_work_tree(repo: Repo) -> None:
    (repo.root / "train.py").write_text("edited\n")
    git(repo.root, "add", "train.py")
    (repo.root / "notes.txt").write_text("mine")
    before = git(repo.root, "status", "--porcelain"), git(repo.root, "for-each-ref"), git(repo.root, "ls-files", "-s")
    base = head(repo)
    commit = repo.candidate(base, "A = 2  # ä\n", MESSAGE)
    assert before == (
        git(repo.root, "status", "--porcelain"), git(repo.root, "for-each-ref"), git(repo.root, "ls-files", "-s"),
    )  # fmt: skip
    assert repo.text(commit) == "A = 2  # ä\n"
    assert repo.parent(commit) == base
    assert repo.message(commit) == MESSAGE
    assert git(repo.root, "show", f"{commit}:program.md") == "Go."
    assert (
        git(repo.root, "log", "-1", "--format=%s|%(trailers:key=Experiment,valueonly,separator=)", commit) == "wider|1"
    )
    assert "-A = 1" in repo.diff(base, commit)
    assert "+A = 2  # ä" in repo.diff(base, commit)
    assert git(repo.root, "fsck", "--strict") == f"dangling commit {commit}"


@pytest.mark.parametrize("text", ["", "\r\n", "A = 1\r\nB = 2\n", "no end", "A = '\ufeff'\n"])
def test_a_text_is_kept_byte_for_byte(repo: Repo, text: str) -> None:
    git(repo.root, "config", "core.autocrlf", "true")
    (repo.root / ".git" / "info" / "attributes").write_text("*.py text eol=crlf\n")
    commit = repo.candidate(head(repo), text, MESSAGE)
    assert repo.text(commit) == text
    assert repo.blob(commit) == blob_id(text.encode())


def test_refs_move_by_compare_and_swap_only(repo: Repo) -> None:
    base = head(repo)
    one, two = (repo.candidate(base, f"A = {n}\n", MESSAGE) for n in (2, 3))
    repo.pin(1, one)
    assert repo.experiment(1) == one
    assert repo.experiment(2) is None
    with pytest.raises(GitFailed, match="update-ref"):
        repo.pin(1, two)
    repo.pin(1, two, one)
    assert repo.experiment(1) == two
    repo.advance(base, one)
    with pytest.raises(GitFailed):
        repo.advance(base, two)
    assert repo.head() == one


def test_a_persons_hooks_and_signing_do_not_run(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    hooks = repo.root / ".git" / "hooks"
    hooks.mkdir(exist_ok=True)
    for name in ("reference-transaction", "pre-commit", "commit-msg", "post-index-change"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {repo.root}/hook-ran\nexit 1\n")
        (hooks / name).chmod(0o755)
    git(repo.root, "config", "commit.gpgSign", "true")
    git(repo.root, "config", "gpg.program", "false")
    base = head(repo)
    commit = repo.candidate(base, "A = 2\n", MESSAGE)
    repo.pin(1, commit)
    repo.advance(base, commit)
    assert repo.sync_worktree(commit, {blob_id(b"A = 1\n")}) == "followed"
    assert not (repo.root / "hook-ran").exists()


def test_an_identity_is_found_where_none_is_configured(
    repo: Repo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for variable in ("NAME", "EMAIL"):
        for role in ("AUTHOR", "COMMITTER"):
            monkeypatch.delenv(f"GIT_{role}_{variable}", raising=False)
    fresh = Repo(repo.root, repo.branch)
    who = "--format=%an <%ae> %cn <%ce>"
    nobody = fresh.candidate(head(repo), "A = 2\n", MESSAGE)
    fallback = "autoresearch <autoresearch@localhost>"
    assert git(repo.root, "log", "-1", who, nobody) == f"{fallback} {fallback}"
    git(repo.root, "config", "user.name", "Ada Byron")
    git(repo.root, "config", "user.email", "ada@example.org")
    somebody = Repo(repo.root, repo.branch).candidate(head(repo), "A = 3\n", MESSAGE)
    assert git(repo.root, "log", "-1", who, somebody) == "Ada Byron <ada@example.org> Ada Byron <ada@example.org>"
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Grace")
    other = Repo(repo.root, repo.branch).candidate(head(repo), "A = 4\n", MESSAGE)
    assert git(repo.root, "log", "-1", who, other) == "Grace <ada@example.org> Ada Byron <ada@example.org>"
    fresh.close()


def test_the_environment_of_an_outer_git_is_ignored(
    repo: Repo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "--quiet")
    for variable in ("GIT_DIR", "GIT_OBJECT_DIRECTORY"):
        monkeypatch.setenv(variable, str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / "index"))
    commit = repo.candidate(head(repo), "A = 2\n", MESSAGE)
    repo.pin(1, commit)
    assert repo.experiment(1) == commit
    assert not (other / ".git" / "refs" / "experiments").exists()


class TestWorkTree:
    def kept(self, repo: Repo) -> tuple[str, set[str]]:
        base = head(repo)
        commit = repo.candidate(base, "A = 2\n", MESSAGE)
        repo.advance(base, commit)
        return commit, {blob_id(b"A = 1\n"), blob_id(b"A = 2\n")}

    def test_it_follows_where_nobody_edited(self, repo: Repo) -> None:
        assert repo.sync_worktree(*self.kept(repo)) == "followed"
        assert repo.work_text() == "A = 2\n"
        assert git(repo.root, "status", "--porcelain") == ""

    def test_an_edit_is_never_overwritten(self, repo: Repo) -> None:
        commit, known = self.kept(repo)
        (repo.root / "train.py").write_text("A = 1\nmine = True\n")
        assert repo.sync_worktree(commit, known) == "edited"
        assert repo.work_text() == "A = 1\nmine = True\n"

    def test_what_was_staged_stays_staged(self, repo: Repo) -> None:
        commit, known = self.kept(repo)
        (repo.root / "train.py").write_text("staged = True\n")
        git(repo.root, "add", "train.py")
        (repo.root / "train.py").write_text("A = 1\n")
        assert repo.sync_worktree(commit, known) == "followed"
        assert git(repo.root, "show", ":train.py") == "staged = True"

    def test_a_deleted_trainer_stays_deleted(self, repo: Repo) -> None:
        commit, known = self.kept(repo)
        (repo.root / "train.py").unlink()
        assert repo.sync_worktree(commit, known) == "edited"
        assert repo.work_text() is None

    def test_another_branch_is_left_alone(self, repo: Repo) -> None:
        commit, known = self.kept(repo)
        git(repo.root, "checkout", "--quiet", "--detach", "HEAD")
        (repo.root / "train.py").write_text("A = 1\n")
        assert repo.sync_worktree(commit, known) == "elsewhere"
        assert repo.work_text() == "A = 1\n"

    def test_an_index_that_is_locked_is_told(self, repo: Repo) -> None:
        commit, known = self.kept(repo)
        (repo.root / ".git" / "index.lock").touch()
        with pytest.raises(GitFailed, match=r"index\.lock"):
            repo.sync_worktree(commit, known)

    def test_text_that_is_no_utf8_is_told(self, repo: Repo) -> None:
        (repo.root / "train.py").write_bytes(b"A = '\xff'\n")
        with pytest.raises(UserError, match="byte 5"):
            repo.work_text()


def test_packing_loses_nothing_and_leaves_few_files(repo: Repo) -> None:
    base = head(repo)
    commits = []
    for number in range(1, 20):
        commits.append(repo.candidate(base, f"A = {number}\n", MESSAGE))
        repo.pin(number, commits[-1])
    loose = sum(1 for path in (repo.root / ".git" / "objects").glob("??/*"))
    repo.tidy()
    assert sum(1 for path in (repo.root / ".git" / "objects").glob("??/*")) == 0 < loose
    assert not list((repo.root / ".git" / "refs" / "experiments").glob("*"))
    assert [repo.experiment(number) for number in range(1, 20)] == commits
    assert repo.text(commits[7]) == "A = 8\n"
    repo.pin(20, repo.candidate(base, "A = 20\n", MESSAGE))
    assert git(repo.root, "fsck", "--strict") == ""


def test_stale_locks_of_refs_are_removed(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    base = head(repo)
    commit = repo.candidate(base, "A = 2\n", MESSAGE)
    experiments = repo.root / ".git" / "refs" / "experiments"
    experiments.mkdir(exist_ok=True)
    git = repo.root / ".git"
    old = [git / "refs" / "heads" / "autoresearch" / "t.lock", git / "HEAD.lock", experiments / "1.lock"]
    index, young = repo.root / ".git" / "index.lock", experiments / "2.lock"
    for lock in (*old, index, young):
        lock.touch()
    # What the wall clock says of their age means nothing: it may have been set since.
    for lock, age in zip((*old, index, young), (3600, -3600, 0, 3600, 3600), strict=True):
        os.utime(lock, (time.time() - age, time.time() - age))
    with pytest.raises(GitFailed):
        repo.pin(1, commit)
    monkeypatch.setattr("core.store.repository._STALE_LOCK_SECONDS", 0.5)
    held = threading.Timer(0.2, lambda: os.utime(young))  # another git took it anew meanwhile
    held.start()
    assert repo.remove_stale_locks() == sorted(old)
    held.join()
    repo.pin(1, commit)
    repo.advance(base, commit)
    assert index.exists()
    assert young.exists()


def test_names_that_git_refuses(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'autoresearch/a b' is no name for a branch"):
        Repo.create(tmp_path, "autoresearch/a b", {"train.py": ""}, "x")
    assert list(tmp_path.iterdir()) == []


def test_a_commit_that_is_gone_is_told(repo: Repo) -> None:
    with pytest.raises(UserError, match="no readable train.py"):
        repo.text("0123456789" * 4)
    assert repo.ref("refs/heads/nowhere") is None
