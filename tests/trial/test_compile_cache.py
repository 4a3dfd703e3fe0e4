"""Compile caches: private copies, what is taken back and when, and a store that stays small."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support import trainer_text

from core.trial import compile_cache

Run = Callable[..., Any]  # a Trial; Any, for what is None only after a failure

WRITE = "import pathlib, os; d = pathlib.Path('compiled/kind'); d.mkdir(exist_ok=True); (d / {name!r}).write_text('x')"


def names(store: Path) -> set[str]:
    return {path.name for path in store.rglob("*") if path.is_file()}


@pytest.fixture
def store(fresh_cache: Path) -> Path:
    return compile_cache.store("numpy")


def test_what_was_written_before_the_first_batch_reaches_the_next_trial_and_nothing_else_does(
    run: Run, store: Path
) -> None:
    early, late = WRITE.format(name="early"), WRITE.format(name="late")
    last = f'{WRITE.format(name="last")}; trial.finish({{"counts": counts}})'
    scored = trainer_text(before=early, each=late, after=last).replace(
        "    table =", f"    {WRITE.format(name='scored')}\n    table ="
    )
    assert run(scored).verdict == "scored"
    assert names(store) == {"early"}
    look = "import os; assert os.listdir('compiled/kind') == ['early'], os.listdir('compiled/kind')"
    assert run(trainer_text(before=look)).reason == ""


@pytest.mark.parametrize("ends", ["raise ValueError", 'trial.finish({"counts": counts * float("nan")})'])
def test_a_trial_without_a_score_leaves_nothing(run: Run, store: Path, ends: str) -> None:
    assert run(trainer_text(before=WRITE.format(name="early"), after=ends)).verdict == "crash"
    assert names(store) == set()


def test_scorers_which_compile_nothing_get_no_copy(run: Run, store: Path) -> None:
    (store / "kind").mkdir(parents=True)
    (store / "kind" / "old").write_text("large")
    looks = trainer_text(before="import os; assert os.listdir('compiled') == ['kind']")
    scored = "    import os; assert not os.path.exists('compiled/kind'), 'a copy'\n    table ="
    assert run(looks.replace("    table =", scored)).reason == ""


def test_what_is_in_the_store_cannot_be_changed(run: Run, store: Path) -> None:
    (store / "kind").mkdir(parents=True)
    (store / "kind" / "old").write_text("as it was")
    code = "open('compiled/kind/old', 'w').write('changed')"
    assert run(trainer_text(before=code)).verdict == "scored"
    assert (store / "kind" / "old").read_text() == "as it was"
    with pytest.MonkeyPatch.context() as patch:
        from core.sandbox import tier

        patch.setattr(tier, "_off", "--no-sandbox")  # a copy keeps even then
        assert run(trainer_text(before=code)).verdict == "scored"
    assert (store / "kind" / "old").read_text() == "as it was"


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_and_pipes_are_not_followed(tmp_path: Path) -> None:
    cache, secret = tmp_path / "cache", tmp_path / "secret"
    (cache / "kind").mkdir(parents=True)
    secret.mkdir()
    (secret / "text").write_text("val")
    (cache / "kind" / "file").write_text("x")
    (cache / "kind" / "link").symlink_to(secret / "text")
    (cache / "folder").symlink_to(secret)
    os.mkfifo(cache / "kind" / "pipe")
    with closing(compile_cache.PendingEntries(tmp_path / "store", tmp_path / "aside")) as pending:
        pending.take(cache)
        pending.merge()
    assert names(tmp_path / "store") == {"file"}


def test_a_cache_that_is_none_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_cache, "STORE_BYTES", 1000)
    for name, size in (("a", 600), ("b", 600)):
        (tmp_path / "cache").mkdir(exist_ok=True)
        (tmp_path / "cache" / name).write_bytes(b"x" * size)
    with closing(compile_cache.PendingEntries(tmp_path / "store", tmp_path / "aside")) as pending:
        pending.take(tmp_path / "cache")
        pending.merge()
    assert not (tmp_path / "store").exists() or names(tmp_path / "store") == set()


def test_the_oldest_entries_go_and_go_whole(tmp_path: Path) -> None:
    now = time.time()
    for age, entry in enumerate(["new", "middle", "old"]):
        for part in ("code", "library"):
            path = tmp_path / "kind" / entry / part
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x" * 100)
            os.utime(path, (now - 100 * age,) * 2)
    compile_cache.evict(tmp_path, 600)
    assert len(names(tmp_path)) == 2 and len(list(tmp_path.rglob("code"))) == 3
    compile_cache.evict(tmp_path, 599)
    assert {path.parent.name for path in tmp_path.rglob("code")} == {"new", "middle"}
    compile_cache.evict(tmp_path, 0)
    assert list(tmp_path.rglob("*")) == [tmp_path / "kind"]


def test_trials_that_end_at_once_merge_at_once(tmp_path: Path) -> None:
    def one(number: int) -> None:
        cache = tmp_path / f"cache{number}"
        for name in ("common", f"own{number}"):
            path = cache / "kind" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x" * 100_000)
        with closing(compile_cache.PendingEntries(tmp_path / "store", tmp_path / f"aside{number}")) as pending:
            pending.take(cache)
            pending.merge()
        compile_cache.copy(tmp_path / "store", tmp_path / f"copy{number}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(8)))
    files = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert {path.name for path in files} == {"common", *(f"own{number}" for number in range(8))}
    assert all(path.stat().st_size == 100_000 for path in files)
