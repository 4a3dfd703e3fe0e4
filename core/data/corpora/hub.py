"""The corpora `climbmix` and `tinystories`: Parquet files of Hugging Face datasets, fetched through huggingface_hub.

Downloads resume where they were cut off, in the same run or a later one. A file is used only if its SHA-256 is the
server's. Once all is encoded, neither the network nor the Parquet files are needed.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import FileIO
from pathlib import Path
from threading import Lock
from typing import Any

from core.data.corpora.base import OnStage, Part, Split
from core.data.corpora.parquet import parquet_parts
from core.records import UserError
from core.system import install
from core.system.files import cache_root, digest, file_sha256, read_json, write_json
from core.system.text import one_line

READING = 1  # raised when the same files give other documents
# Upstream's default; its H100 baseline trains on 499.6M tokens.
CLIMBMIX_SHARDS = 10
CLIMBMIX_LAST = 6542  # upstream's validation shard
# Rows of each held-out split: the first are test, the next val, as forks of upstream have it.
TINYSTORIES_HELD_OUT = 10_000
DOWNLOADS = 4  # files at once


class HubCorpus:
    """Parquet files of one dataset. `files` maps each to the splits of its rows; `rule` gives the split of each row."""

    def __init__(
        self, name: str, repo: str, files: dict[str, frozenset[Split]], rule: Callable[[str, int, str], Split]
    ) -> None:
        self.name = name
        self.left_out = ""
        self.lock = repo  # climbmix:2 and climbmix:10 share their files
        self._repo = repo
        self._files = files
        self._rule = rule
        self._folder = cache_root() / "hub" / repo.replace("/", "--")

    def identity(self) -> str | None:
        known = self._known()
        if any(file not in known for file in self._files):
            return None
        return digest("hub", READING, self._repo, [(file, known[file]["sha256"]) for file in self._files])

    def fetch(self, on_progress: OnStage) -> None:
        """Download the files that are missing or damaged. UserError if that fails."""
        known = self._known()
        for file in self._files:
            if file not in known:
                known[file] = self._described(file)
                # This pins its revision: a later run fetches the same file.
                write_json(self._folder / "files.json", known)
        missing = [file for file in self._files if not self._whole(file, known[file])]
        total = sum(known[file]["size"] for file in missing)
        done: dict[str, int] = {}
        lock = Lock()

        def on_bytes(file: str, count: int) -> None:
            with lock:
                done[file] = count
                on_progress("download", sum(done.values()), total)

        with ThreadPoolExecutor(DOWNLOADS) as threads:
            for _ in threads.map(lambda file: self._download(file, known[file], partial(on_bytes, file)), missing):
                pass

    def parts(self) -> Sequence[Part]:
        return [
            part
            for file, splits in self._files.items()
            for part in parquet_parts(self._folder / file, partial(self._rule, file), splits)
        ]

    def _known(self) -> dict[str, dict[str, Any]]:
        return read_json(self._folder / "files.json") or {}

    def _whole(self, file: str, known: dict[str, Any]) -> bool:
        path = self._folder / file
        return path.is_file() and path.stat().st_size == known["size"] and file_sha256(path) == known["sha256"]

    def _described(self, file: str) -> dict[str, Any]:
        hub = _hub()
        url = hub.hf_hub_url(self._repo, file, repo_type="dataset", endpoint=_endpoint())
        try:
            found = hub.get_hf_file_metadata(url)
        except Exception as error:  # errors of whichever HTTP library it uses come through
            raise self._failure(file, error) from error
        if found.size is None or found.commit_hash is None or not re.fullmatch(r"[0-9a-f]{64}", found.etag or ""):
            raise UserError(
                f"expected {url} to come with a revision, a size and a SHA-256, got {found.commit_hash}, {found.size} "
                f"and {found.etag}; check HF_ENDPOINT"
            )
        return {"revision": found.commit_hash, "size": found.size, "sha256": found.etag}

    def _download(self, file: str, known: dict[str, Any], on_bytes: Callable[[int], None]) -> None:
        hub = _hub()
        from huggingface_hub.file_download import http_get

        path = self._folder / file
        cut_off = path.with_name(f"{path.name}.{known['sha256'][:16]}.partial")
        cut_off.parent.mkdir(parents=True, exist_ok=True)
        url = hub.hf_hub_url(self._repo, file, repo_type="dataset", revision=known["revision"], endpoint=_endpoint())
        while True:
            begun = 0
            try:
                with _MeteredFile(cut_off, on_bytes) as opened:
                    if (begun := opened.tell()) > known["size"]:
                        opened.truncate(begun := 0)
                    http_get(
                        url,
                        opened,
                        resume_size=begun,
                        headers=hub.utils.build_hf_headers(),
                        expected_size=known["size"],
                        tqdm_class=_silent(),
                    )
                break
            except Exception as error:
                # http_get itself resumes after some failures; after the others, go on while bytes keep coming.
                if cut_off.stat().st_size <= begun:
                    raise self._failure(file, error) from error
        if (got := file_sha256(cut_off)) != known["sha256"]:
            cut_off.unlink()
            raise UserError(
                f"expected {self._repo}/{file} with SHA-256 {known['sha256']}, got {got}: what was downloaded is "
                "damaged and was deleted; run `autoresearch prepare` again"
            )
        cut_off.replace(path)

    def _failure(self, file: str, error: Exception) -> UserError:
        from huggingface_hub import errors

        if isinstance(error, errors.OfflineModeIsEnabled):
            reason, mend = "HF_HUB_OFFLINE is set", "unset it"
        elif isinstance(error, (errors.RepositoryNotFoundError, errors.EntryNotFoundError)):
            reason = f"{_endpoint() or 'the hub'} has no such file"
            mend = "check HF_ENDPOINT, and HF_TOKEN if the dataset is private"
        else:
            reason = f"{type(error).__name__}: {one_line(str(error), 200) or 'no reason given'}"
            mend = "check the network (and HF_ENDPOINT)"
        return UserError(
            f"expected to fetch {self._repo}/{file} for the corpus {self.name}, but {reason}; {mend} and run "
            "`autoresearch prepare` again: it goes on where it stopped. `--corpus apidocs` needs no hub"
        )


def climbmix(shards: int = CLIMBMIX_SHARDS) -> HubCorpus:
    """Shuffled ClimbMix: the first `shards` files to train on; of the last one, half val and half test by hash."""
    if shards > CLIMBMIX_LAST:
        raise UserError(f"expected at most {CLIMBMIX_LAST} training shards of climbmix, got {shards}")
    files: dict[str, frozenset[Split]] = {f"shard_{n:05d}.parquet": frozenset(("train",)) for n in range(shards)}
    last = f"shard_{CLIMBMIX_LAST:05d}.parquet"
    files[last] = frozenset(("val", "test"))

    def rule(file: str, row: int, text: str) -> Split:
        if file != last:
            return "train"
        return "val" if hashlib.sha256(text.encode()).digest()[-1] % 2 == 0 else "test"

    return HubCorpus(f"climbmix:{shards}", "karpathy/climbmix-400b-shuffle", files, rule)


def tinystories() -> HubCorpus:
    """Stories by GPT-4 in simple words, cleaned."""

    def rule(file: str, row: int, text: str) -> Split:
        return "test" if row < TINYSTORIES_HELD_OUT else "val" if row < 2 * TINYSTORIES_HELD_OUT else "train"

    files: dict[str, frozenset[Split]] = {"tinystories_gpt4_clean.parquet": frozenset(("train", "val", "test"))}
    return HubCorpus("tinystories", "karpathy/tinystories-gpt4-clean", files, rule)


class _MeteredFile(FileIO):
    """The file that a download is appended to; reports its length."""

    def __init__(self, path: Path, on_bytes: Callable[[int], None]) -> None:
        super().__init__(path, "ab")
        self._on_bytes = on_bytes

    def write(self, data: Any, /) -> int:
        written = super().write(data)
        self._on_bytes(self.tell())
        return written


def _endpoint() -> str | None:
    # Read at each call: the hub reads it at its import only.
    return os.environ.get("HF_ENDPOINT") or None


def _hub() -> Any:
    try:
        import huggingface_hub
        import pyarrow  # noqa: F401 - needed to read what is fetched
    except ImportError as error:
        raise UserError(
            f"this corpus needs huggingface_hub and pyarrow ({error}); run `{install.command('hub')}`"
        ) from error
    return huggingface_hub


def _silent() -> Any:
    from huggingface_hub.utils.tqdm import tqdm

    class Silent(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "disable": True})  # type: ignore[no-untyped-call]

    return Silent
