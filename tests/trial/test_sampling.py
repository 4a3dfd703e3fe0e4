"""Drawing text from a model."""

import math
from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest

from core.data.tokenizer import Tokenizer
from core.records import Facts, UserError
from core.trial.sampling import SamplingParams, generate

BYTES = Tokenizer(())


class Follows:
    """A model that holds a table of logits [vocabulary, vocabulary] and sees nothing but the last token."""

    def __init__(self, table_VV: npt.NDArray[np.float32], window: int = 8) -> None:
        self.facts = Facts(vocabulary=256, bos=255, seed=0, backend="numpy", device="cpu", sequence_length=window)
        self.table_VV = table_VV
        self.seen: list[tuple[int, int]] = []

    def logits(self, tokens_BT: npt.NDArray[np.int32], positions_N2: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        assert tokens_BT.shape == (1, self.facts.sequence_length)
        ((row, time),) = positions_N2.tolist()
        assert row == 0
        assert 0 <= time < self.facts.sequence_length
        self.seen.append((time, int(tokens_BT[0, time])))
        return self.table_VV[tokens_BT[0, time]][None]


def chain(*ids: int) -> npt.NDArray[np.float32]:
    """Logits by which each id is followed by the next one, the last by the first."""
    table = np.zeros((256, 256), np.float32)
    for here, after in zip(ids, (*ids[1:], ids[0]), strict=True):
        table[here, after] = 50.0
    return table


def text_of(model: Follows, prompt: str, **params: float) -> str:
    return "".join(generate(model, BYTES, prompt, SamplingParams(**params)))  # type: ignore[arg-type]


def test_the_likeliest_token_is_taken_at_temperature_zero() -> None:
    assert text_of(Follows(chain(*b"abc")), "a", temperature=0, length=7) == "bcabcab"


def test_the_window_moves_on_when_the_text_is_longer() -> None:
    model = Follows(chain(*b"abc"), window=4)
    assert text_of(model, "abc", temperature=0, length=9) == "abcabcabc"
    assert [time for time, _ in model.seen] == [3] * 9
    assert bytes(token for _, token in model.seen) == b"cabcabcab"


def test_a_prompt_longer_than_the_window_is_continued_from_its_end() -> None:
    assert text_of(Follows(chain(*b"abc"), window=4), "abcabcab", temperature=0, length=2) == "ca"


def test_pieces_are_whole_characters() -> None:
    word = "🙂é".encode()
    pieces = list(generate(Follows(chain(*word)), BYTES, "é"[:0] + "", SamplingParams(temperature=0, length=1)))  # type: ignore[arg-type]
    assert len(pieces) <= 1
    model = Follows(chain(*word))
    model.table_VV[255] = model.table_VV[word[-1]]
    pieces = list(generate(model, BYTES, "", SamplingParams(temperature=0, length=len(word))))  # type: ignore[arg-type]
    assert pieces == ["🙂", "é"]


def test_bytes_that_are_no_character_are_shown_as_such() -> None:
    model = Follows(chain(0xFE, 0x61))
    assert text_of(model, "a", temperature=0, length=4) == "\ufffda\ufffda"
    model = Follows(chain(0xF0, 0x61))  # opens a character that never comes
    assert text_of(model, "a", temperature=0, length=2) == "\ufffda"
    assert text_of(model, "a", temperature=0, length=1) == "\ufffd"


def test_the_end_of_a_document_is_an_empty_line() -> None:
    assert text_of(Follows(chain(0x61, 255, 0x62)), "", temperature=0, length=4) == "ba\n\nb"


def test_the_same_seed_gives_the_same_text_and_another_seed_another() -> None:
    table = np.zeros((256, 256), np.float32)
    table[:, 128:] = -100.0
    first, again = (text_of(Follows(table), "x", seed=3, length=50) for _ in range(2))
    assert first == again
    assert text_of(Follows(table), "x", seed=4, length=50) != first


def test_draws_follow_the_softmax_at_the_temperature() -> None:
    table = np.full((256, 256), -200.0, np.float32)
    table[:, [0x61, 0x62]] = [math.log(9.0), 0.0]  # 9 to 1; at temperature 2, 3 to 1
    for temperature, share in ((1.0, 0.9), (2.0, 0.75)):
        text = text_of(Follows(table), "a", temperature=temperature, length=4000, seed=1)
        deviation = math.sqrt(share * (1 - share) / 4000)
        assert Counter(text)["a"] / 4000 == pytest.approx(share, abs=4 * deviation)


@pytest.mark.parametrize("params", [{"temperature": -0.1}, {"temperature": math.nan}, {"length": 0}])
def test_a_sampling_parameter_that_makes_no_sense_is_told(params: dict[str, float]) -> None:
    with pytest.raises(UserError, match="--temperature|--length"):
        SamplingParams(**params)  # type: ignore[arg-type]
