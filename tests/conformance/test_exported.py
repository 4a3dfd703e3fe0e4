"""The reference trainers as model.py, in a process that can import nothing of ours: the logits are `restore`'s."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import isolated
import numpy as np
import pytest
from conformance import adapters
from safetensors.numpy import save_file

from core.campaign.model_card import ENTRY
from core.data.huggingface import to_huggingface
from core.data.tokenizer import Tokenizer
from core.trainer.standalone import standalone

pytest.importorskip("tokenizers", reason="Hugging Face's tokenizers is not installed: make setup")

CODE = """
import numpy as np
from model import load
model = load()
np.save("logits.npy", model.logits(np.load("tokens.npy")))
print("".join(model.generate("The", length=12, temperature=0)), end="")
"""


@pytest.mark.parametrize(
    "backend", [adapters.REFERENCE, *(pytest.param(one, marks=pytest.mark.long) for one in adapters.OTHERS)]
)
def test_an_exported_model_gives_the_same_logits_without_autoresearch(tmp_path: Path, backend: str) -> None:
    if (reason := adapters.unavailable(backend)) is not None:
        pytest.skip(reason)
    ours = adapters.adapter(backend, tmp_path)
    random = np.random.default_rng(5)
    # Not those that training starts from: zeros would write nothing to the residual stream.
    weights = {name: random.standard_normal(shape, np.float32) * 0.3 for name, shape in ours.shapes().items()}
    tokens = random.integers(0, adapters.VOCABULARY, (2, 64), np.int32)
    facts = dataclasses.replace(adapters.facts(backend), bos=255)
    folder = tmp_path / "model"
    folder.mkdir()
    trainer = (tmp_path / f"conformance_{backend}_trainer.py").read_text(encoding="utf-8")
    (folder / "model.py").write_text(standalone(ENTRY.format(backend=backend), trainer), encoding="utf-8")
    (folder / "facts.json").write_text(json.dumps(dataclasses.asdict(facts)), encoding="utf-8")
    (folder / "tokenizer.json").write_text(json.dumps(to_huggingface(Tokenizer(()))), encoding="utf-8")
    save_file(weights, folder / "model.safetensors")
    np.save(folder / "tokens.npy", tokens)
    text = isolated.run(CODE, folder)
    expected = ours.logits(weights, tokens)
    assert np.abs(expected).max() > 1  # the weights matter
    np.testing.assert_allclose(np.load(folder / "logits.npy"), expected, rtol=1e-5, atol=1e-5)
    assert text
