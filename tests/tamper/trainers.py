"""One small trainer, written for each framework, whose parts a cheat or an odd model replaces.

Training counts token pairs with NumPy; `restore` builds a model in the framework. Imported as `tamper.trainers`.
"""

from __future__ import annotations

import textwrap

# `xp` has the names that the four share, `put` brings a NumPy array over.
HEADS = {
    "numpy": "import numpy as xp\nput = np.asarray",
    "torch": "import torch as xp\nput = lambda array: xp.from_numpy(np.ascontiguousarray(array))",
    "jax": "import jax.numpy as xp\nput = xp.asarray",
    "mlx": "import mlx.core as xp\nput = xp.array",
}

TRAINER = """
import numpy as np
from core.trial import join
{head}

def main():
    trial = join(device_rows=4)
    trial.describe(flops_per_token=2.0, dtype="{dtype} (as the test has it)")
    vocabulary, random = trial.facts.vocabulary, np.random.default_rng(trial.facts.seed)
    counts = np.full((vocabulary, vocabulary), 0.05, np.float32)
{before}
    for step, tokens in enumerate(trial.batches(16, {length})):
        np.add.at(counts, (tokens[:, :-1], tokens[:, 1:]), 1.0)
{each}
    table = np.log(counts / counts.sum(1, keepdims=True))
    weights = {{"table": table}}
{after}
    trial.finish(weights)

{model}

def restore(weights, facts):
{restore}
"""

BIGRAM = """
def model(weights, facts):
    table = put(weights["table"])
    return lambda tokens: table[tokens]
"""

# Two layers of four heads with random weights on top of the counts; a key's score falls with its age. REACH says how
# many tokens each head sees ahead of its own, WINDOW how many back.
ATTENTION = """
LAYERS, HEADS, WIDTH, WINDOW = 2, 4, 16, 64
REACH = np.zeros((LAYERS, HEADS), int).tolist()

def model(weights, facts, cast=lambda array: array):
    w = {name: cast(put(array)) for name, array in weights.items()}

    def head(x, reach, *names):
        q, k, v = (x @ w[name] for name in names)
        at = xp.arange(x.shape[1])
        age = at[:, None] - at
        scores = q @ xp.swapaxes(k, 1, 2) * 0.5 - cast(xp.abs(age) * 0.5)
        e = xp.exp(xp.where((age + reach >= 0) & (age <= WINDOW), scores, -1e4))
        return (e / (e @ cast(xp.ones((x.shape[1], 1)))) ) @ v

    def logits(tokens):
        x = w["embedding"][tokens]
        for i in range(LAYERS):
            heads = [head(x, REACH[i][j], *(f"{part}.{i}.{j}" for part in "qkv")) for j in range(HEADS)]
            x = x + xp.concatenate(heads, 2) @ w[f"o.{i}"]
        return w["table"][tokens] + x @ w["unembedding"]

    return logits
"""

ATTENTION_WEIGHTS = """
def drawn(*shape):
    return random.normal(0, shape[0] ** -0.5, shape).astype(np.float32)

for i in range(LAYERS):
    weights[f"o.{i}"] = drawn(WIDTH, WIDTH)
    for j in range(HEADS):
        weights.update({f"{part}.{i}.{j}": drawn(WIDTH, WIDTH // HEADS) for part in "qkv"})
weights["embedding"] = drawn(vocabulary, WIDTH) * vocabulary ** 0.5
weights["unembedding"] = drawn(WIDTH, vocabulary)
"""


def trainer(
    backend: str = "numpy",
    *,
    before: str = "",
    each: str = "",
    after: str = "",
    model: str = BIGRAM,
    restore: str = "return model(weights, facts)",
    dtype: str = "float32",
    length: int = 32,
) -> str:
    """The trainer's text. `before`, `each` and `after` are statements of main, `restore` is the body of restore."""
    if model.lstrip().startswith("LAYERS"):
        after = ATTENTION_WEIGHTS + after
    body = {"before": before, "each": each, "after": after, "restore": restore}
    parts = {name: textwrap.indent(textwrap.dedent(text).strip() or "pass", "    ") for name, text in body.items()}
    parts["each"] = textwrap.indent(parts["each"], "    ")
    return TRAINER.format(head=HEADS[backend], dtype=dtype, length=length, model=model, **parts)
