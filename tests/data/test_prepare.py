"""prepare: what is built is right, is built once, and survives damage, kills and company."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from core.data import Dataset, prepare
from core.data import tokenizer as tokenizers
from core.data.corpora import base
from core.data.corpora.folder import FolderCorpus
from core.records import UserError
from core.system.files import cache_root

REPOSITORY = Path(__file__).parents[2]
PART_BYTES = 40_000  # a corpus of 450 kB in a dozen shards


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "PART_BYTES", PART_BYTES)


def child_code(corpus: str, vocabulary: int, then: str = "") -> str:
    return (
        f"from core.data import prepare; from core.data.corpora import base; base.PART_BYTES = {PART_BYTES}\n"
        f"dataset = prepare({corpus!r}, {vocabulary}, on_progress=lambda *stage: print(*stage, flush=True))\n{then}"
    )


def train_texts(dataset: Dataset) -> list[str]:
    return [dataset.tokenizer.decode(dataset.train[n].tolist()) for n in range(len(dataset.train))]


def everything(dataset: Dataset) -> tuple[object, ...]:
    train = dataset.train
    ids = [train[n].tobytes() for n in range(len(train))]
    return dataset.tokenizer.identity, ids, dataset.scored("val", 10**9).yardstick, dataset.sizes()


def files(root: Path, suffix: str) -> list[Path]:
    return sorted(path for path in root.rglob(f"*{suffix}") if "hub" not in path.parts)


@pytest.mark.parametrize(("vocabulary", "dtype"), [(256, np.uint16), (700, np.uint16)])
def test_train_shards_hold_the_training_documents(
    corpus_folder: Path, small_parts: None, fresh_cache: Path, vocabulary: int, dtype: type
) -> None:
    dataset = prepare(f"folder:{corpus_folder}", vocabulary)
    documents = [document for part in FolderCorpus(corpus_folder).parts() for document in part.documents()]
    assert train_texts(dataset) == [text for split, text in documents if split == "train"]
    train = dataset.train
    assert len(train.values) > 5
    assert all(values.dtype == dtype for values in train.values)
    assert all(isinstance(values.base, np.memmap) for values in train.values)
    assert all(train[n][0] == dataset.tokenizer.bos for n in range(len(train)))
    assert all((train[n][1:] != dataset.tokenizer.bos).all() for n in range(len(train)))
    assert train.tokens == sum(map(len, train.values)) == train.lengths.sum()
    assert dataset.sizes() == {
        split: (sum(s == split for s, _ in documents), sum(len(t.encode()) for s, t in documents if s == split))
        for split in ("train", "val", "test")
    }


def test_large_vocabularies_are_stored_in_uint32(fresh_cache: Path, tmp_path: Path) -> None:
    from core.data.shards import build_shards, open_shards

    tokens = [bytes([n]) for n in range(256)] + [bytes([n // 256, n % 256]) for n in range(65_536)]
    tokenizer = tokenizers.Tokenizer(tokens)
    root = tmp_path / "texts"
    root.mkdir()
    (root / "a.txt").write_text("a" * 500, encoding="utf-8")
    parts = FolderCorpus(root).parts()
    build_shards(tmp_path / "tokens", parts, tokenizer, lambda *got: None)
    shards = open_shards(tmp_path / "tokens", tokenizer)
    assert shards is not None
    assert shards.values[0].dtype == np.uint32
    assert shards.values[0][0] == tokenizer.bos == 65_792


def test_a_second_prepare_builds_nothing_and_opens_fast(corpus_folder: Path, cache: Path) -> None:
    corpus = f"folder:{corpus_folder}"
    first = prepare(corpus, 500)
    got: list[str] = []
    start = time.perf_counter()
    again = prepare(corpus, 500, on_progress=lambda stage, done, total: got.append(stage))
    assert time.perf_counter() - start < 1.0
    assert got == []
    assert everything(again) == everything(first)


def test_progress_is_told_from_none_to_all(corpus_folder: Path, fresh_cache: Path, small_parts: None) -> None:
    got: list[tuple[str, int, int]] = []
    prepare(f"folder:{corpus_folder}", 300, on_progress=lambda *progress: got.append(progress))
    stages = list(dict.fromkeys(stage for stage, _, _ in got))
    assert stages == ["held-out documents", "tokenizer", "tokens"]
    for stage in stages:
        steps = [(done, total) for name, done, total in got if name == stage]
        assert steps[0][0] == 0
        assert steps[-1][0] == steps[-1][1] > 0
        assert steps == sorted(steps)


def test_vocabulary_changes_the_tokens_and_not_the_yardstick(corpus_folder: Path, cache: Path) -> None:
    corpus = f"folder:{corpus_folder}"
    datasets = [prepare(corpus, vocabulary) for vocabulary in (256, 300, 500)]
    assert len({dataset.train.tokens for dataset in datasets}) == 3
    assert [dataset.tokenizer.vocabulary for dataset in datasets] == [256, 300, 500]
    for split in ("val", "test"):
        texts = [dataset.scored(split, 9000) for dataset in datasets]
        assert len({(text.yardstick, text.bytes) for text in texts}) == 1
        assert texts[0].bytes >= 9000
    assert datasets[0].scored("val", 9000).yardstick != datasets[0].scored("test", 9000).yardstick
    assert datasets[0].scored("val", 9000).yardstick != datasets[0].scored("val", 15_000).yardstick


def test_the_tokenizer_sees_no_held_out_document(
    corpus_folder: Path, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    train = tokenizers.train

    def noting(texts: Iterator[str], vocabulary: int) -> tokenizers.Tokenizer:
        seen.extend(texts)
        return train(seen, vocabulary)

    monkeypatch.setattr(tokenizers, "train", noting)
    dataset = prepare(f"folder:{corpus_folder}", 300)
    assert seen == train_texts(dataset)


def test_the_tokenizer_is_trained_on_a_capped_sample_from_every_part(
    corpus_folder: Path, fresh_cache: Path, small_parts: None
) -> None:
    from core.data.shards import sample

    parts = FolderCorpus(corpus_folder).parts()
    texts = list(sample(parts, 60_000, 1000))
    counted = sum(min(len(text), 1000) for text in texts)
    assert 60_000 <= counted < 60_000 + 1000 * len(parts)
    for part in parts:
        assert any(text in texts for split, text in part.documents() if split == "train")
    assert len(list(sample(parts, 10**9, 1000))) == sum(s == "train" for p in parts for s, _ in p.documents())


def damage_truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def damage_flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


def damage_remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [damage_truncate, damage_flip, damage_empty, damage_remove])
def test_every_damaged_file_is_found_and_rebuilt(
    corpus_folder: Path, fresh_cache: Path, small_parts: None, damage: Callable[[Path], None]
) -> None:
    corpus = f"folder:{corpus_folder}"
    expected = everything(prepare(corpus, 300))
    built = [*files(fresh_cache, ".values"), *files(fresh_cache, ".offsets"), *files(fresh_cache, ".json")]
    shards = [path for path in built if path.parent.parent.name == "tokens" and path.stem.startswith("0")]
    others = [path for path in built if path not in shards]
    assert len(shards) >= 15
    for path in [*shards[::7], *others]:
        before = {other: other.stat().st_mtime_ns for other in shards}
        damage(path)
        assert everything(prepare(corpus, 300)) == expected, path
        rebuilt = {other.stem for other in shards if other.stat().st_mtime_ns != before[other]}
        assert rebuilt <= {path.stem}, "only the damaged shard is encoded again"


def test_files_of_another_run_do_not_pass_for_whole(corpus_folder: Path, fresh_cache: Path, small_parts: None) -> None:
    corpus = f"folder:{corpus_folder}"
    expected = everything(prepare(corpus, 300))
    values = [path for path in files(fresh_cache, ".values") if path.parent.parent.name == "tokens"]
    a, b = values[0].read_bytes(), values[1].read_bytes()
    values[0].write_bytes(b)
    values[1].write_bytes(a)
    assert everything(prepare(corpus, 300)) == expected


@pytest.mark.parametrize("shards_before_the_end", [1, 4, 8])
def test_killed_at_any_shard_it_goes_on(
    corpus_folder: Path, fresh_cache: Path, small_parts: None, shards_before_the_end: int
) -> None:
    corpus = f"folder:{corpus_folder}"
    # The child pauses at each report of progress, so that the kill finds it in the middle.
    code = "import time\n" + child_code(corpus, 300).replace(
        "print(*stage, flush=True)", "(print(*stage, flush=True), time.sleep(0.05))"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        seen = 0
        for line in child.stdout:
            seen += line.startswith("tokens")
            if seen > shards_before_the_end:
                break
        child.kill()
    done = {path: path.stat().st_mtime_ns for path in files(fresh_cache / "tokens", ".json")}
    assert len(done) >= shards_before_the_end
    assert not any(path.name == "shards.json" for path in done)
    half = next(iter(done)).parent / ".00099.values.x.tmp"  # as a kill within a write leaves it
    half.write_bytes(b"half")
    dataset = prepare(corpus, 300)
    assert all(path.stat().st_mtime_ns == time_ for path, time_ in done.items()), "whole shards are kept"
    assert not half.exists()
    whole = [
        text for part in FolderCorpus(corpus_folder).parts() for split, text in part.documents() if split == "train"
    ]
    assert train_texts(dataset) == whole


def test_two_processes_at_once_build_one_thing(corpus_folder: Path, fresh_cache: Path, small_parts: None) -> None:
    corpus = f"folder:{corpus_folder}"
    code = child_code(corpus, 400, "print('identity', dataset.tokenizer.identity, dataset.train.tokens)")
    children = [
        subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [child.communicate(timeout=60)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert outputs[0].splitlines()[-1] == outputs[1].splitlines()[-1]
    assert outputs[0].splitlines()[-1].startswith("identity")
    builders = [output for output in outputs if "tokenizer" in output]
    assert len(builders) == 1, "one builds, the other waits and opens"
    dataset = prepare(corpus, 400, on_progress=lambda *got: pytest.fail("nothing is left to build"))
    assert outputs[0].split()[-1] == str(dataset.train.tokens)


def test_an_interrupted_download_frees_the_lock(corpus_folder: Path, fresh_cache: Path) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(f"folder:{corpus_folder}", 300, on_progress=stop)
    assert prepare(f"folder:{corpus_folder}", 300).tokenizer.vocabulary == 300


def test_impossible_vocabularies_are_refused_before_any_work(corpus_folder: Path, fresh_cache: Path) -> None:
    with pytest.raises(UserError, match="expected a vocabulary of 256"):
        prepare(f"folder:{corpus_folder}", 257)
    assert not fresh_cache.exists()
    with pytest.raises(UserError, match="enough text for a vocabulary of 60000"):
        prepare(f"folder:{corpus_folder}", 60_000)


def test_too_few_documents_for_three_splits_is_said(tmp_path: Path, fresh_cache: Path) -> None:
    root = tmp_path / "few"
    root.mkdir()
    (root / "one.txt").write_text("a single document", encoding="utf-8")
    with pytest.raises(UserError, match=r"every split of folder:.*none of 1 documents fell to val and test; add"):
        prepare(f"folder:{root}", 256)


def test_the_cache_is_where_it_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(tmp_path / "x"))
    assert cache_root() == tmp_path / "x"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTORESEARCH_CACHE", "relative")
    assert cache_root() == tmp_path / "relative"
    monkeypatch.delenv("AUTORESEARCH_CACHE")
    assert cache_root().name.lower().startswith("autoresearch") or cache_root().parent.name == "autoresearch"


def test_data_imports_nothing_heavy() -> None:
    code = "import sys, json, core.data; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    heavy = {"torch", "jax", "mlx", "pyarrow", "huggingface_hub", "tiktoken", "rustbpe", "botocore"}
    assert not heavy & set(json.loads(done.stdout))


def test_many_documents_that_are_equal_are_told_from_too_few(tmp_path: Path, fresh_cache: Path) -> None:
    (tmp_path / "same.jsonl").write_text('{"text": "the same words again and again"}\n' * 400)
    reason = r"none of 400 documents \(1 without those that are equal\) fell to val and test; add documents: from "
    with pytest.raises(UserError, match=reason):
        prepare(f"folder:{tmp_path}", 256)


@pytest.mark.parametrize(("documents", "score_bytes", "warned"), [(40, 5000, 2), (400, 5000, 0), (400, 10, 2)])
def test_validation_of_few_documents_is_a_warning(
    documents: int, score_bytes: int, warned: int, tmp_path: Path, cache: Path
) -> None:
    for number in range(documents):
        (tmp_path / f"{number}.txt").write_text(f"document {number} has these words. " * 20, encoding="utf-8")
    dataset = prepare(f"folder:{tmp_path}", 256)
    found = dataset.warnings(score_bytes)
    assert len(found) == warned
    assert all("fewer than 5: scores say how well a model fits these" in one for one in found)
    count = len(dataset.scored("val", score_bytes).documents)
    assert not found or f"validation is {'one document' if count == 1 else f'{count} documents'}" in found[0]
