"""Text from a model: the next token drawn again and again, over a window of the model's own length."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from core.records import UserError

if TYPE_CHECKING:
    from core.data.tokenizer import Tokenizer
    from core.trial.model import Model


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How tokens are drawn. `temperature` 0 always takes the likeliest; `length` is in tokens."""

    temperature: float = 0.8
    length: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 10:
            raise UserError(f"--temperature is 0 (the likeliest token) to 10, not {self.temperature:g}")
        if self.length < 1:
            raise UserError(f"--length counts tokens and is at least 1, not {self.length}")


def generate(model: Model, tokenizer: Tokenizer, prompt: str, params: SamplingParams) -> Iterator[str]:
    """Pieces of text that continue the prompt, whole characters only. A document's end is an empty line."""
    random = np.random.default_rng(params.seed)
    context = [tokenizer.bos, *tokenizer.encode(prompt)]
    window = model.facts.sequence_length
    pending: list[int] = []  # tokens of a character that isn't whole yet
    for _ in range(params.length):
        token = draw(_next_logits(model, context, window), params.temperature, random)
        context = [*context[-window:], token]
        if token == tokenizer.bos:
            if text := tokenizer.decode(pending):
                yield text
            pending = []
            yield "\n\n"
            continue
        pending.append(token)
        raw = tokenizer.decode_bytes(pending)
        try:
            yield raw.decode()
        except UnicodeDecodeError as error:
            # Bytes that only lack their end may still become a character; any others never will.
            if error.reason == "unexpected end of data" and len(raw) - error.start < 4:
                continue
            yield raw.decode(errors="replace")
        pending = []
    if pending:
        yield tokenizer.decode(pending)


def _next_logits(model: Model, context: list[int], window: int) -> npt.NDArray[np.float32]:
    """Logits of the next token, [vocabulary]. Always asked for at one length, so that a model compiles once."""
    seen = context[-window:]
    tokens_BT = np.zeros((1, window), np.int32)
    tokens_BT[0, : len(seen)] = seen  # the model is causal: what follows the last true token is not looked at
    positions_N2 = np.array([[0, len(seen) - 1]], np.int32)
    logits_V: npt.NDArray[np.float32] = model.logits(tokens_BT, positions_N2)[0]
    return logits_V


def draw(logits_V: npt.NDArray[np.float32], temperature: float, random: np.random.Generator) -> int:
    """A token drawn from the softmax of the logits over `temperature`; at 0 the likeliest."""
    if temperature == 0:
        return int(logits_V.argmax())
    scaled_V = logits_V.astype(np.float64) / temperature
    # Gumbel's trick: the largest of logits plus Gumbel noise is a draw from their softmax.
    return int((scaled_V + random.gumbel(size=scaled_V.shape)).argmax())
