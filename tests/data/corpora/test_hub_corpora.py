"""climbmix and tinystories over the wire, from a loopback server that cuts, lies and vanishes."""

import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hub_server import HubServer
from synthetic import synthetic_documents

from core.data import prepare
from core.data.corpora import hub as hub_corpora
from core.data.corpora.hub import climbmix
from core.records import UserError
from core.system import install

constants = pytest.importorskip("huggingface_hub.constants", reason="needs the extra hub")

CLIMBMIX = "karpathy/climbmix-400b-shuffle"
STORIES = "karpathy/tinystories-gpt4-clean/tinystories_gpt4_clean.parquet"
REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def shards(hub: HubServer, parquet: Callable[..., bytes]) -> list[list[str]]:
    """Two training shards and the last one, on the server."""
    texts = [synthetic_documents(120, seed=seed, words=40) for seed in (21, 22, 23)]
    for name, chosen in zip(("00000", "00001", "06542"), texts, strict=True):
        hub.files[f"{CLIMBMIX}/shard_{name}.parquet"] = parquet(chosen)
    return texts


def fetched(hub: HubServer) -> list[str]:
    return [name.rpartition("/")[2] for method, name, _ in hub.asked if method == "GET"]


def test_the_last_shard_is_held_out_half_and_half(hub: HubServer, shards: list[list[str]], fresh_cache: Path) -> None:
    done: list[tuple[str, int, int]] = []
    dataset = prepare("climbmix:2", 300, on_progress=lambda *got: done.append(got))
    decoded = [dataset.tokenizer.decode(dataset.train[n].tolist()) for n in range(len(dataset.train))]
    assert decoded == shards[0] + shards[1]
    held = [{d.decode() for d in dataset.scored(split, 10**9).documents} for split in ("val", "test")]
    assert held[0] | held[1] == set(shards[2])
    assert not held[0] & held[1]
    assert 40 < len(held[0]) < 80
    size = sum(map(len, hub.files.values()))
    downloads = [got for got in done if got[0] == "download"]
    assert downloads[-1] == ("download", size, size)


def test_the_yardstick_is_one_for_any_number_of_shards(
    hub: HubServer, shards: list[list[str]], fresh_cache: Path
) -> None:
    small, large = prepare("climbmix:1", 256), prepare("climbmix:2", 300)
    assert len(small.train) < len(large.train)
    assert small.scored("val", 3000).yardstick == large.scored("val", 3000).yardstick


def test_once_encoded_neither_the_network_nor_the_files_are_needed(
    hub: HubServer, shards: list[list[str]], fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare("climbmix:1", 256)
    for path in (fresh_cache / "hub").rglob("*.parquet"):
        path.unlink()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    again = prepare("climbmix:1", 256)
    assert again.train.tokens == first.train.tokens


def test_only_missing_files_are_fetched_and_damaged_ones_again(
    hub: HubServer, shards: list[list[str]], fresh_cache: Path
) -> None:
    prepare("climbmix:1", 256)
    assert sorted(fetched(hub)) == ["shard_00000.parquet", "shard_06542.parquet"]
    hub.asked.clear()
    damaged = fresh_cache / "hub" / CLIMBMIX.replace("/", "--") / "shard_00000.parquet"
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    prepare("climbmix:2", 300)
    assert sorted(fetched(hub)) == ["shard_00000.parquet", "shard_00001.parquet"]


def test_stories_are_split_by_row(
    hub: HubServer, parquet: Callable[..., bytes], fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_corpora, "TINYSTORIES_HELD_OUT", 30)
    texts = synthetic_documents(200, seed=24, words=30)
    hub.files[STORIES] = parquet(texts)
    dataset = prepare("tinystories", 300)
    assert {d.decode() for d in dataset.scored("test", 10**9).documents} == set(texts[:30])
    assert {d.decode() for d in dataset.scored("val", 10**9).documents} == set(texts[30:60])
    assert [dataset.tokenizer.decode(dataset.train[n].tolist()) for n in range(140)] == texts[60:]


def test_a_cut_connection_is_resumed(
    hub: HubServer, parquet: Callable[..., bytes], fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = synthetic_documents(120, seed=25, words=40)
    for name in ("00000", "06542"):
        hub.files[f"{CLIMBMIX}/shard_{name}.parquet"] = parquet(texts)
    hub.cut_at = 5000
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # 10 MB: more than the files here
    dataset = prepare("climbmix:1", 256)
    assert len(dataset.train) == 120
    assert [asked for method, _, asked in hub.asked if asked] == ["bytes=5000-"]


def test_killed_while_downloading_it_goes_on_where_it_was(
    hub: HubServer, shards: list[list[str]], fresh_cache: Path
) -> None:
    hub.stall_at = 7000
    code = (
        "from huggingface_hub import constants; constants.DOWNLOAD_CHUNK_SIZE = 1000; "
        "from core.data import prepare; prepare('climbmix:1', 256)"
    )
    folder = fresh_cache / "hub" / CLIMBMIX.replace("/", "--")
    with subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY) as child:
        try:
            deadline = time.monotonic() + 30
            while [path.stat().st_size for path in folder.glob("*.partial")] != [7000, 7000]:
                assert time.monotonic() < deadline, "the download did not begin"
                assert child.poll() is None
                time.sleep(0.02)
        finally:
            child.kill()
    hub.stall_at = None
    hub.asked.clear()
    dataset = prepare("climbmix:1", 256)
    assert len(dataset.train) == 120
    assert {asked for method, _, asked in hub.asked if method == "GET"} == {"bytes=7000-"}
    assert not list(folder.glob("*.partial"))


def test_another_content_than_the_checksum_says_is_refused(
    hub: HubServer, shards: list[list[str]], fresh_cache: Path
) -> None:
    hub.checksums[f"{CLIMBMIX}/shard_00000.parquet"] = "ab" * 32
    with pytest.raises(UserError, match=r"shard_00000\.parquet with SHA-256 abab.*damaged and was deleted"):
        prepare("climbmix:1", 256)
    assert not list(fresh_cache.rglob("*.partial"))
    assert not list(fresh_cache.rglob("shard_00000.parquet"))


def test_a_server_without_checksums_is_refused(hub: HubServer, shards: list[list[str]], fresh_cache: Path) -> None:
    hub.checksums[f"{CLIMBMIX}/shard_00000.parquet"] = "not-a-sha256"
    with pytest.raises(UserError, match="to come with a revision, a size and a SHA-256"):
        prepare("climbmix:1", 256)


def test_a_missing_file_is_told(hub: HubServer, shards: list[list[str]], fresh_cache: Path) -> None:
    del hub.files[f"{CLIMBMIX}/shard_06542.parquet"]
    with pytest.raises(UserError, match=r"shard_06542\.parquet for the corpus climbmix:1, but .* has no such file"):
        prepare("climbmix:1", 256)


def test_no_server_is_told(fresh_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"check the network \(and HF_ENDPOINT\).*`--corpus apidocs` needs no hub"):
        prepare("tinystories", 256)


@pytest.mark.parametrize("module", ["huggingface_hub", "pyarrow"])
def test_the_missing_extra_is_told_with_its_command(
    module: str, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=re.escape(f"run `{install.command('hub')}`")):
        prepare("climbmix:1", 256)


def test_more_shards_than_there_are_is_told() -> None:
    with pytest.raises(UserError, match="at most 6542 training shards"):
        climbmix(7000)
