"""The tokenizer: every byte accounted for, whatever the text."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import synthetic_documents

from core.data import tokenizer as tokenizers
from core.data.tokenizer import Tokenizer
from core.records import UserError

VOCABULARIES = (256, 258, 400, 1000)


@pytest.fixture(scope="module")
def trained() -> dict[int, Tokenizer]:
    documents = synthetic_documents(60, seed=3)
    return {vocabulary: tokenizers.train(documents, vocabulary) for vocabulary in VOCABULARIES}


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@settings(deadline=None, max_examples=60)
@given(text=st.one_of(st.text(), st.text(alphabet="<|bos>é \n\t🙂a1'", max_size=60)))
def test_any_text_comes_back_and_its_bytes_are_counted(
    trained: dict[int, Tokenizer], vocabulary: int, text: str
) -> None:
    tokenizer = trained[vocabulary]
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode_bytes(ids) == text.encode()
    assert tokenizer.byte_lengths[ids].sum() == len(text.encode())
    assert tokenizer.bos not in ids
    assert all(0 <= token < vocabulary for token in ids)


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_has_exactly_the_ids_that_were_asked_for(trained: dict[int, Tokenizer], vocabulary: int) -> None:
    tokenizer = trained[vocabulary]
    assert tokenizer.vocabulary == vocabulary
    assert tokenizer.byte_lengths.shape == (vocabulary,)
    assert tokenizer.byte_lengths.dtype == np.int32
    assert np.flatnonzero(tokenizer.byte_lengths == 0).tolist() == [tokenizer.bos]


def test_a_token_that_is_no_utf8_alone_has_its_own_length(trained: dict[int, Tokenizer]) -> None:
    tokenizer = trained[400]
    lone = [token for token in range(256) if token != tokenizer.bos and tokenizer.decode_bytes([token]) >= b"\x80"]
    assert len(lone) == 128
    assert tokenizer.byte_lengths[lone].tolist() == [1] * 128
    assert all(len(tokenizer.decode([token]).encode()) == 3 for token in lone)  # what counting by decode() would say


def test_plain_bytes_are_the_text_and_bos_is_the_byte_that_no_text_has(trained: dict[int, Tokenizer]) -> None:
    tokenizer = trained[256]
    assert tokenizer.encode("aé🙂") == list("aé🙂".encode())
    assert tokenizer.bos == 0xFF
    assert tokenizer.decode([tokenizer.bos, *b"hi"]) == "hi"


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_the_text_of_a_special_token_is_ordinary_text(trained: dict[int, Tokenizer], vocabulary: int) -> None:
    tokenizer = trained[vocabulary]
    text = "<|bos|> a <|bos|><|endoftext|>"
    assert tokenizer.bos not in tokenizer.encode(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_threads_encode_as_one_does(trained: dict[int, Tokenizer]) -> None:
    texts = [*synthetic_documents(300, seed=4, words=20), "", "x"]
    for tokenizer in trained.values():
        assert [ids.tolist() for ids in tokenizer.encode_stream(texts)] == [tokenizer.encode(text) for text in texts]


def test_merges_compress_more_with_more_of_them(trained: dict[int, Tokenizer]) -> None:
    text = " ".join(synthetic_documents(20, seed=5))
    counts = [len(trained[vocabulary].encode(text)) for vocabulary in VOCABULARIES]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] < 0.5 * counts[0]


@pytest.mark.parametrize("text", [" " * 1_200_000, "\n \t" * 400_000, "a" * 1_000_000, "word " * 60_000])
def test_a_text_that_overflows_the_splitter_is_encoded_in_pieces(trained: dict[int, Tokenizer], text: str) -> None:
    tokenizer = trained[1000]
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_lone_surrogate_becomes_a_replacement_character(trained: dict[int, Tokenizer]) -> None:
    for tokenizer in trained.values():
        assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a\ufffdb"


def test_same_text_trains_the_same_tokenizer(trained: dict[int, Tokenizer]) -> None:
    again = tokenizers.train(synthetic_documents(60, seed=3), 400)
    other = tokenizers.train(synthetic_documents(60, seed=8), 400)
    assert again.identity == trained[400].identity
    assert other.identity != trained[400].identity


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_stored_as_json_and_read_back(trained: dict[int, Tokenizer], vocabulary: int, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    trained[vocabulary].save(path)
    assert json.loads(path.read_bytes())["vocabulary"] == vocabulary
    again = Tokenizer.load(path)
    assert again is not None
    assert again.identity == trained[vocabulary].identity
    assert again.encode("größer 🙂 12345") == trained[vocabulary].encode("größer 🙂 12345")


def test_a_damaged_file_is_no_tokenizer(trained: dict[int, Tokenizer], tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    trained[400].save(path)
    data = json.loads(path.read_bytes())
    data["tokens"][300], data["tokens"][301] = data["tokens"][301], data["tokens"][300]
    path.write_text(json.dumps(data), encoding="utf-8")
    assert Tokenizer.load(path) is None
    path.write_bytes(path.read_bytes()[:100])
    assert Tokenizer.load(path) is None
    assert Tokenizer.load(tmp_path / "missing.json") is None


@pytest.mark.parametrize("vocabulary", [-1, 0, 1, 255, 257, 1 << 30])
def test_an_impossible_vocabulary_is_refused(vocabulary: int) -> None:
    with pytest.raises(UserError, match="expected a vocabulary of 256"):
        tokenizers.train(["some text"], vocabulary)


def test_too_little_text_for_the_vocabulary_is_said() -> None:
    with pytest.raises(UserError, match=r"enough text for a vocabulary of 2048.*has only 9 merges"):
        tokenizers.train(["hello world"] * 3, 2048)


def test_the_key_depends_on_all_that_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [tokenizers.key("corpus", 400), tokenizers.key("other", 400), tokenizers.key("corpus", 401)]
    for name, value in (("PATTERN", r"\w+|\W+"), ("SAMPLE_CHARACTERS", 5), ("SAMPLE_DOCUMENT", 5)):
        with monkeypatch.context() as patch:
            patch.setattr(tokenizers, name, value)
            keys.append(tokenizers.key("corpus", 400))
    assert len(set(keys)) == len(keys)
    assert tokenizers.key("corpus", 400) == keys[0]
