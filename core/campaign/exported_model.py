"""The part of an exported model.py beside the trainer's `restore`: opens the folder, continues a text.

`core.campaign.models` writes its text into model.py, so it imports only what a person with the model has.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from core.records import Facts
from core.trial.sampling import draw


class ExportedModel:
    """A language model with its tokenizer, from the folder of a model.py."""

    def __init__(
        self,
        restore: Callable[[dict[str, np.ndarray], Facts], Callable[[Any], Any]],
        to_device: Callable[[np.ndarray, str], Any],
        to_numpy: Callable[[Any], np.ndarray],
        folder: Path,
        device: str | None,
    ) -> None:
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        self.facts = Facts(**json.loads((folder / "facts.json").read_text(encoding="utf-8")))
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.encode_special_tokens = True  # text that looks like <|bos|> is text
        self._to_device, self._to_numpy = to_device, to_numpy
        weights = load_file(folder / "model.safetensors")
        if device is not None:
            self.facts = dataclasses.replace(self.facts, device=device)
        try:
            self._restored = restore(weights, self.facts)
        except Exception as error:
            if device is not None or self.facts.device == "cpu":
                raise
            print(f"{self.facts.device} can't be used here ({error}); the CPU is used", file=sys.stderr)
            self.facts = dataclasses.replace(self.facts, device="cpu")
            self._restored = restore(weights, self.facts)

    def logits(self, tokens_BT: Any) -> np.ndarray:
        """The logits of the token after each position: ids [B, T] -> float32 [B, T, vocabulary]."""
        tokens_BT = np.ascontiguousarray(tokens_BT, np.int32)
        return np.asarray(self._to_numpy(self._restored(self._to_device(tokens_BT, self.facts.device))), np.float32)

    def generate(self, prompt: str = "", length: int = 200, temperature: float = 0.8, seed: int = 0) -> Iterator[str]:
        """Pieces of text that continue the prompt, `length` tokens in all. A document's end is an empty line."""
        from tokenizers.decoders import DecodeStream

        random, stream = np.random.default_rng(seed), DecodeStream(skip_special_tokens=True)
        context = [self.facts.bos, *self.tokenizer.encode(prompt, add_special_tokens=False).ids]
        window = self.facts.sequence_length
        for _ in range(length):
            seen = context[-window:]
            tokens_BT = np.zeros((1, window), np.int32)  # one length, so that a model compiles once
            tokens_BT[0, : len(seen)] = seen
            token = draw(self.logits(tokens_BT)[0, len(seen) - 1], temperature, random)
            context = [*seen, token]
            if token == self.facts.bos:
                stream = DecodeStream(skip_special_tokens=True)
                yield "\n\n"
            elif piece := stream.step(self.tokenizer, token):
                yield piece

    @staticmethod
    def command_line(load: Callable[..., ExportedModel]) -> None:
        """Prints text: `python model.py --prompt "The"`."""
        parser = argparse.ArgumentParser(description="Continues a text.")
        parser.add_argument("--prompt", default="", help="the beginning of the text")
        parser.add_argument("--length", type=int, default=200, metavar="N", help="tokens to generate")
        parser.add_argument("--temperature", type=float, default=0.8, metavar="X", help="0 takes the likeliest token")
        parser.add_argument("--seed", type=int, default=0, metavar="N", help="the same seed gives the same text")
        parser.add_argument("--device", help="default: the one it was trained on, or the CPU if that isn't here")
        given = vars(parser.parse_args())
        model = load(device=given.pop("device"))
        sys.stdout.write(given["prompt"])
        for piece in model.generate(**given):
            sys.stdout.write(piece)
            sys.stdout.flush()
        sys.stdout.write("\n")
