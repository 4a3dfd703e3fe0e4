"""The tokenizer as Hugging Face's tokenizer.json, which the `tokenizers` library and transformers read.

`encode(text, add_special_tokens=False)` of `tokenizers` gives the ids of `Tokenizer.encode` for texts of up to 100,000
characters (ours cuts longer ones into pieces); by itself, `encode(text)` puts BOS in front.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from core.data.tokenizer import Tokenizer

BOS = "<|bos|>"
# Their bytes are written as characters (GPT-2's table): printable ones of Latin-1 as themselves, others from U+0100 up.
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
_CHARACTERS = {**{byte: chr(byte) for byte in _PRINTABLE}, **{byte: chr(256 + i) for i, byte in enumerate(_OTHERS)}}
_BYTES = {character: byte for byte, character in _CHARACTERS.items()}


def to_huggingface(tokenizer: Tokenizer) -> dict[str, Any]:
    """The content of tokenizer.json. Ids stay the same; BOS is `<|bos|>`."""
    tokens = [tokenizer.decode_bytes([token]) for token in range(tokenizer.bos)]
    bos = {"id": tokenizer.bos, "content": BOS, "special": True}
    plain_text = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    splits: list[dict[str, Any]] = []
    if not tokenizer.plain:
        splits = [{"type": "Split", "pattern": {"Regex": tokenizer.pattern}, "behavior": "Isolated", "invert": False}]
    bytes_of = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    with_bos = [{"SpecialToken": {"id": BOS, "type_id": 0}}]
    first, second = ({"Sequence": {"id": name, "type_id": kind}} for name, kind in (("A", 0), ("B", 1)))
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{**bos, **plain_text}],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*splits, bytes_of]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [*with_bos, first],
            "pair": [*with_bos, first, second],
            "special_tokens": {BOS: {"id": BOS, "ids": [tokenizer.bos], "tokens": [BOS]}},
        },
        "decoder": bytes_of,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,  # a piece that is a token is that token, as in tiktoken
            "vocab": {**{_characters(token): rank for rank, token in enumerate(tokens)}, BOS: tokenizer.bos},
            "merges": [f"{_characters(left)} {_characters(right)}" for left, right in _merges(tokens)],
        },
    }


def from_huggingface(data: Mapping[str, Any]) -> Tokenizer | None:
    """The tokenizer that `to_huggingface` wrote; None for anything else."""
    try:
        vocabulary = {token: rank for token, rank in data["model"]["vocab"].items() if token != BOS}
        splits = data["pre_tokenizer"]["pretokenizers"]
        pattern = splits[0]["pattern"]["Regex"] if splits[0]["type"] == "Split" else None
        ordered = sorted(vocabulary, key=lambda token: int(vocabulary[token]))
        tokens = [bytes(_BYTES[character] for character in token) for token in ordered]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return None
    if sorted(vocabulary.values()) != list(range(len(vocabulary))):
        return None
    return Tokenizer(()) if pattern is None else Tokenizer(tokens, pattern)


def _merges(tokens: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Every way to put a token together from two others, in the order of the tokens.

    tiktoken merges two neighbours if they make a token, whichever two made it in training.
    """
    known = set(tokens)
    for token in tokens:
        for cut in range(1, len(token)):
            if (left := token[:cut]) in known and (right := token[cut:]) in known:
                yield left, right


def _characters(token: bytes) -> str:
    return "".join(_CHARACTERS[byte] for byte in token)
