"""Our tokenizer as Hugging Face's tokenizer.json: their library gives the same ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.data import tokenizer as ours
from core.data.huggingface import from_huggingface, to_huggingface
from core.data.tokenizer import Tokenizer

hf = pytest.importorskip("tokenizers", reason="Hugging Face's tokenizers is not installed: make setup")

ROOT = Path(__file__).parents[2]
PAGES = [path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))]
FOREIGN = (
    "Größenwahn, naïve façade — 12345 Stück à 3,50 €.\r\n\r\n\t\tÉtat d'âme; l’été.\n"
    "Съешь ещё этих мягких французских булок. Ξεσκεπάζω τὴν ψυχοφθόρα βδελυγμία. עִבְרִית العربية ١٢٣٤\n"
    "敏捷的棕色狐狸跳過了懶狗。いろはにほへと、カタカナ。 다람쥐 헌 쳇바퀴에 타고파 हिन्दी में ४५६ ไทย\n"
    "👩‍👩‍👧 🏳️‍🌈 e\u0301 \u00a0\u2003\u3000\u200b\ufeff ﬃ ſ's I'LL we'Ve 'ſ x\u2028y\u2029z \x85\x0b\x0c "
)
VOCABULARIES = (256, 258, 700, 2000)


@pytest.fixture(scope="module")
def pairs() -> dict[int, tuple[Tokenizer, Any]]:
    """For each vocabulary our tokenizer, trained on real text, and theirs, read from what was written."""
    found = {}
    for vocabulary in VOCABULARIES:
        tokenizer = ours.train([*PAGES, FOREIGN * 20], vocabulary)
        found[vocabulary] = (tokenizer, hf.Tokenizer.from_str(json.dumps(to_huggingface(tokenizer))))
    return found


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_real_text_gets_the_same_ids(pairs: dict[int, tuple[Tokenizer, Any]], vocabulary: int) -> None:
    tokenizer, theirs = pairs[vocabulary]
    assert theirs.get_vocab_size() == tokenizer.vocabulary
    for text in (*PAGES, FOREIGN, (ROOT / "core/records.py").read_text(encoding="utf-8"), "", " ", "a" * 3000):
        ids = tokenizer.encode(text)
        assert theirs.encode(text, add_special_tokens=False).ids == ids
        assert theirs.encode(text).ids == [tokenizer.bos, *ids]
        assert theirs.decode([tokenizer.bos, *ids]) == text  # special ones are skipped
        assert theirs.token_to_id("<|bos|>") == tokenizer.bos


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@settings(deadline=None, max_examples=150)
@given(
    text=st.one_of(
        st.lists(st.sampled_from([*FOREIGN, *"abcdehlmnorst '\n\r\t0123"]), max_size=80).map("".join),
        st.text(alphabet=st.characters(max_codepoint=0x2FFF, exclude_categories=("Cs", "Cn")), max_size=40),
        st.text(alphabet="aab \n", max_size=60),
    )
)
def test_any_text_gets_the_same_ids(pairs: dict[int, tuple[Tokenizer, Any]], vocabulary: int, text: str) -> None:
    tokenizer, theirs = pairs[vocabulary]
    assert theirs.encode(text, add_special_tokens=False).ids == tokenizer.encode(text)


def test_text_that_looks_like_bos_is_text_where_that_is_asked_for(pairs: dict[int, tuple[Tokenizer, Any]]) -> None:
    tokenizer, theirs = pairs[700]
    text = "before <|bos|> after"
    assert tokenizer.bos in theirs.encode(text, add_special_tokens=False).ids
    theirs.encode_special_tokens = True
    try:
        assert theirs.encode(text, add_special_tokens=False).ids == tokenizer.encode(text)
    finally:
        theirs.encode_special_tokens = False


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_what_was_written_is_read_back(pairs: dict[int, tuple[Tokenizer, Any]], vocabulary: int) -> None:
    tokenizer = pairs[vocabulary][0]
    data = json.loads(json.dumps(to_huggingface(tokenizer)))
    again = from_huggingface(data)
    assert again is not None and again.identity == tokenizer.identity
    del data["model"]["vocab"]["a"]
    assert from_huggingface(data) is None
    assert from_huggingface({"tokens": []}) is None
