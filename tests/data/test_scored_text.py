"""Scored text: each byte once, whatever the vocabulary and the length; the yardstick tells what was scored."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import synthetic_documents

from core.data import Dataset, scored
from core.data import tokenizer as tokenizers
from core.data.ragged import Ragged
from core.data.scored import ScoredText
from core.data.shards import TokenShards
from core.data.tokenizer import Tokenizer
from core.records import UserError

VOCABULARIES = (256, 300, 1000)


@pytest.fixture(scope="module")
def trained() -> dict[int, Tokenizer]:
    documents = synthetic_documents(60, seed=3)
    return {vocabulary: tokenizers.train(documents, vocabulary) for vocabulary in VOCABULARIES}


def dataset_of(texts: list[str], tokenizer: Tokenizer) -> Dataset:
    data = [text.encode() for text in texts]
    offsets = np.cumsum([0, *map(len, data)]).astype(np.int64)
    held_out = Ragged(np.frombuffer(b"".join(data), dtype=np.uint8), offsets, {})
    return Dataset("made up", tokenizer, TokenShards([]), held_out, held_out)


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@settings(deadline=None, max_examples=60)
@given(texts=st.lists(st.text(min_size=1), min_size=1, max_size=8), length=st.integers(1, 50))
def test_each_byte_is_scored_once(
    trained: dict[int, Tokenizer], vocabulary: int, texts: list[str], length: int
) -> None:
    tokenizer = trained[vocabulary]
    text = ScoredText((text.encode() for text in texts), tokenizer)
    rows = text.rows(length)
    assert rows.inputs_BT.shape == rows.targets_BT.shape == rows.bytes_BT.shape
    assert rows.inputs_BT.shape[1] == length
    assert rows.inputs_BT.dtype == rows.targets_BT.dtype == rows.bytes_BT.dtype == np.int32
    assert rows.bytes_BT.sum() == text.bytes == sum(len(text.encode()) for text in texts)
    assert (rows.bytes_BT[rows.targets_BT == tokenizer.bos] == 0).all()
    # What counts, in order, is the documents' text and nothing else; and each target is the next input.
    counted = rows.targets_BT[rows.bytes_BT > 0]
    assert tokenizer.decode_bytes(counted.tolist()) == "".join(texts).encode()
    assert (rows.inputs_BT.reshape(-1)[1:] == rows.targets_BT.reshape(-1)[:-1]).all()
    assert rows.inputs_BT[0, 0] == tokenizer.bos


def test_the_stream_has_a_bos_before_each_document(trained: dict[int, Tokenizer]) -> None:
    for tokenizer in trained.values():
        text = ScoredText([b"first", "zweites Stück 🙂".encode(), b"x"], tokenizer)
        pieces = np.split(text.stream, np.flatnonzero(text.stream == tokenizer.bos))[1:]
        assert [tokenizer.decode(piece.tolist()) for piece in pieces] == ["first", "zweites Stück 🙂", "x"]


def test_yardstick_is_of_the_bytes_alone(trained: dict[int, Tokenizer], monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [b"one", b"two"]
    yardsticks = {ScoredText(documents, tokenizer).yardstick for tokenizer in trained.values()}
    assert len(yardsticks) == 1
    tokenizer = trained[256]
    others = [[b"on", b"etwo"], [b"two", b"one"], [b"one"], [b"onetwo"], [b"one", b"two", b""]]
    assert len({ScoredText(other, tokenizer).yardstick for other in others} | yardsticks) == len(others) + 1
    monkeypatch.setattr(scored, "SCORING_VERSION", scored.SCORING_VERSION + 1)
    assert ScoredText(documents, tokenizer).yardstick not in yardsticks


def test_whole_documents_until_the_bytes_are_reached(trained: dict[int, Tokenizer]) -> None:
    dataset = dataset_of(["aaaa", "bb", "cccccc", "d"], trained[256])
    sizes = {asked: dataset.scored("val", asked).bytes for asked in (1, 4, 5, 6, 7, 12, 13, 99)}
    assert sizes == {1: 4, 4: 4, 5: 6, 6: 6, 7: 12, 12: 12, 13: 13, 99: 13}
    assert dataset.scored("val", 6) is dataset.scored("val", 6)
    assert dataset.scored("val", 5).yardstick == dataset.scored("val", 6).yardstick
    assert dataset.sizes()["val"] == (4, 13)


def test_impossible_requests_are_refused(trained: dict[int, Tokenizer]) -> None:
    dataset = dataset_of(["aaaa"], trained[256])
    with pytest.raises(UserError, match="val or test"):
        dataset.scored("train", 10)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="at least 1 byte"):
        dataset.scored("val", 0)
    with pytest.raises(UserError, match="at least 1 token"):
        dataset.scored("val", 4).rows(0)


def test_the_order_is_by_hash_and_equal_texts_come_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("held") / "val"
    texts = ["one", "two", "three", "two", "größer"]
    scored.write_held_out(path, texts)
    held_out = scored.open_held_out(path)
    assert held_out is not None
    found = [held_out[row].tobytes().decode() for row in range(len(held_out))]
    assert found == sorted(set(texts), key=lambda text: hashlib.sha256(text.encode()).digest())
