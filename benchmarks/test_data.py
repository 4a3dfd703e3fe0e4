"""Packing and encoding on documents with the lengths of apidocs and of web text. One core is to pack 50M tokens/s."""

import random

import numpy as np
import pytest

from core.data import tokenizer as tokenizers
from core.data.packing import Packer
from core.data.ragged import Ragged
from core.data.shards import TokenShards
from core.data.tokenizer import Tokenizer


def shards(median: int, documents: int, shard_count: int = 4) -> TokenShards:
    """Documents of lognormal length, about as spread as real corpora are, in memory."""
    draw = np.random.default_rng(0)
    pieces = []
    for _ in range(shard_count):
        lengths = np.clip(draw.lognormal(np.log(median), 0.9, documents // shard_count), 2, 40_000).astype(np.int64)
        values = draw.integers(1, 8192, int(lengths.sum()), dtype=np.uint16)
        pieces.append(Ragged(values, np.concatenate([[0], np.cumsum(lengths)]), {}))
    return TokenShards(pieces)


@pytest.mark.benchmark(group="packing")
@pytest.mark.parametrize(
    ("median", "rows", "length"),
    [(550, 128, 2048), (100, 128, 2048), (100, 32, 256)],
    ids=["web-128x2048", "apidocs-128x2048", "apidocs-32x256"],
)
def test_packing(benchmark, median: int, rows: int, length: int) -> None:  # type: ignore[no-untyped-def]
    packer = Packer(shards(median, 40_000), rows, length, seed=1)
    benchmark.extra_info["tokens"] = rows * length
    benchmark.pedantic(packer.next_batch, rounds=100 if rows > 32 else 1000, warmup_rounds=5)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    draw = random.Random(0)
    lexicon = ["".join(draw.choices("etaoinshrdlu", k=draw.randint(2, 9))) for _ in range(4000)]
    weights = [1 / rank for rank in range(1, len(lexicon) + 1)]
    return [" ".join(draw.choices(lexicon, weights, k=draw.randint(30, 150))) + "." for _ in range(4000)]


@pytest.fixture(scope="module")
def tokenizer(texts: list[str]) -> Tokenizer:
    return tokenizers.train(texts, 2048)


@pytest.mark.benchmark(group="tokenizer")
def test_encoding(benchmark, texts: list[str], tokenizer: Tokenizer) -> None:  # type: ignore[no-untyped-def]
    benchmark.extra_info["bytes"] = sum(len(text.encode()) for text in texts)
    benchmark(lambda: list(tokenizer.encode_stream(texts)))


@pytest.mark.benchmark(group="tokenizer")
def test_training(benchmark, texts: list[str]) -> None:  # type: ignore[no-untyped-def]
    benchmark.extra_info["bytes"] = sum(len(text.encode()) for text in texts)
    benchmark.pedantic(tokenizers.train, args=(texts, 2048), rounds=3)
