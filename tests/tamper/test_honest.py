"""Odd models that are honest: no audit accuses them, shallow or deep, wherever it looks."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tamper.conftest import FRAMEWORKS, Case
from tamper.trainers import ATTENTION, trainer

from core.data import prepare
from core.trial import audit

SEEDS = range(20)
Run = Callable[..., Case]

CAST = {
    "numpy": "lambda array: array.astype(np.{0})",
    "torch": "lambda array: array.to(xp.{0})",
    "jax": "lambda array: array.astype(xp.{0})",
    "mlx": "lambda array: array.astype(xp.{0})",
}

RECURRENT = """
def model(weights, facts):
    w = {name: put(array) for name, array in weights.items()}

    def logits(tokens):
        state, states = xp.zeros((tokens.shape[0], 16)), []
        for at in range(tokens.shape[1]):
            state = xp.tanh(state @ w["recurrent"] + w["embedding"][tokens[:, at]])
            states.append(state[:, None])
        return w["table"][tokens] + xp.concatenate(states, 1) @ w["unembedding"]

    return logits
"""
RECURRENT_WEIGHTS = """
weights["recurrent"] = random.normal(0, 0.35, (16, 16)).astype(np.float32)
weights["embedding"] = random.normal(0, 1.0, (vocabulary, 16)).astype(np.float32)
weights["unembedding"] = random.normal(0, 0.3, (16, vocabulary)).astype(np.float32)
"""

EXPERTS = """
def model(weights, facts):
    w = {name: put(array) for name, array in weights.items()}

    def logits(tokens):
        x = w["embedding"][tokens]
        chosen = xp.argmax(x @ w["router"], 2)  # each token goes where it wants: no place is ever full
        out = w["table"][tokens]
        for expert in range(4):
            out = out + xp.where((chosen == expert)[:, :, None], x @ w["experts"][expert], 0.0)
        return out

    return logits
"""
EXPERTS_WEIGHTS = """
weights["embedding"] = random.normal(0, 1.0, (vocabulary, 16)).astype(np.float32)
weights["router"] = random.normal(0, 1.0, (16, 4)).astype(np.float32)
weights["experts"] = random.normal(0, 0.2, (4, 16, vocabulary)).astype(np.float32)
"""

ENSEMBLE = """
one, other = model(weights, facts), put(weights["table"])
def logits(tokens):
    a, b = (xp.exp(part) for part in (one(tokens), other[tokens]))
    ones = xp.ones((facts.vocabulary, 1))
    return xp.log(a / (a @ ones) + b / (b @ ones))
return logits
"""

INT8 = """
def model(weights, facts):
    table = put(weights["table"].astype(np.float32) * weights["scale"])
    return lambda tokens: table[tokens]
"""
INT8_WEIGHTS = """
scale = np.abs(table).max(1, keepdims=True) / 127
weights = {"table": np.round(table / scale).astype(np.int8), "scale": scale.astype(np.float32)}
"""

INDEXED = """
def model(weights, facts):
    rows, columns = weights["sizes"].tolist()
    table, order = weights["table"].reshape(rows, columns), weights["order"]
    assert sorted(order.tolist()) == list(range(rows))
    back = put(table[np.argsort(order)])
    return lambda tokens: back[tokens]
"""
INDEXED_WEIGHTS = """
order = random.permutation(vocabulary)
weights = {"table": table[order].reshape(-1), "sizes": np.array(table.shape), "order": order.astype(np.int64)}
"""

SLOW = """
import time
honest = model(weights, facts)
def logits(tokens):
    time.sleep(0.004 * len(tokens))
    return honest(tokens)
return logits
"""

# Learns nothing in advance: how often which token came so far in its own row.
CACHE = """
def model(weights, facts):
    table = put(weights["table"])

    def logits(tokens):
        came = xp.cumsum(xp.eye(facts.vocabulary)[tokens], 1)
        return table[tokens] + 0.5 * xp.log(came + 0.5)

    return logits
"""


def in_dtype(dtype: str, backend: str) -> dict[str, Any]:
    cast = CAST[backend].format(dtype)
    return {"model": ATTENTION, "restore": f"return model(weights, facts, {cast})", "dtype": dtype}


def told(name: str, backend: str) -> dict[str, Any]:
    """The changes that make the trainer this odd one."""
    half = CAST[backend].format("float16")
    honest: dict[str, dict[str, Any]] = {
        "counts": {},
        "attention": {"model": ATTENTION},
        "window": {"model": ATTENTION.replace("WINDOW = 2, 4, 16, 64", "WINDOW = 2, 4, 16, 5")},
        "recurrent": {"model": RECURRENT, "after": RECURRENT_WEIGHTS},
        "experts": {"model": EXPERTS, "after": EXPERTS_WEIGHTS},
        "ensemble": {"model": ATTENTION, "restore": ENSEMBLE},
        "cache": {"model": CACHE},
        "int8": {"model": INT8, "after": INT8_WEIGHTS},
        "indexed": {"model": INDEXED, "after": INDEXED_WEIGHTS},
        "slow": {"restore": SLOW},
        "longer": {"length": 200},
        "16-bit logits": {
            "model": ATTENTION,
            "restore": f"honest, half = model(weights, facts), {half}\nreturn lambda tokens: half(honest(tokens))",
            "dtype": "float16",
        },
    }
    return in_dtype(name, backend) if name in {"float16", "bfloat16", "float64"} else honest[name]


ODD = (
    "counts attention window recurrent experts ensemble cache int8 indexed slow longer float16 16-bit_logits float64"
).split()
LACKING = {("mlx", "float64"), ("numpy", "bfloat16"), ("jax", "float64")}  # the dtype is not there
FEW, MANY = (5, 1), (20, 3)  # so many audits, small and deep
AUDITS: tuple[tuple[str, tuple[int, int], Any], ...] = (
    ("numpy", FEW, ()),
    *((backend, MANY, pytest.mark.long) for backend in ("numpy", *FRAMEWORKS)),
)
CASES = [
    pytest.param(backend, name.replace("_", " "), *count, id=f"{backend}-{name}-{count[0]}", marks=marks)
    for backend, count, marks in AUDITS
    for name in (*ODD, "bfloat16")
    if (backend, name) not in LACKING
]


@pytest.mark.parametrize(("backend", "name", "small", "deep"), CASES)
def test_an_honest_model_is_never_accused(
    run: Run, backend: str, name: str, small: int, deep: int, record_property: Callable[[str, object], None]
) -> None:
    case = run(trainer(backend, **told(name, backend)), backend)
    assert (case.trial.verdict, case.trial.reason) == ("scored", "")
    found = case.review()
    assert found.fault == ""
    assert found.audit is not None
    assert found.audit.permuted_bpb is None or found.audit.permuted_bpb > case.bpb
    findings = case.audits(range(small), audit.small)
    findings += case.audits(range(1 if name == "slow" else deep), functools.partial(audit.deep, noise_bpb=0.05))
    assert [finding.fault for finding in findings if finding.fault] == []
    largest = max(finding.audit.largest / finding.audit.tolerance for finding in findings if finding.audit)
    assert largest < 0.5, "the tolerance should leave room"
    record_property("largest difference over tolerance", f"{largest:.2g}")


def test_a_model_that_learned_nothing_is_not_a_fault_when_permuted(run: Run) -> None:
    untrained = "weights = {'table': random.normal(0, 0.02, table.shape).astype(np.float32)}"
    case = run(trainer(after=untrained), steps=1)
    assert case.bpb == pytest.approx(8.0, abs=0.01)
    assert case.review().fault == ""


def test_longer_tokens_are_no_matter(run: Run, corpus_folder: Path) -> None:
    data = prepare(f"folder:{corpus_folder}", 512)
    case = run(trainer(model=ATTENTION), data=data, vocabulary=512)
    assert case.trial.reason == ""
    assert case.review().fault == ""
    assert all(not finding.fault for finding in case.audits(SEEDS, audit.small))


def test_dropout_left_on_is_told_as_what_it_is(run: Run) -> None:
    dropout = """
    table, random = put(weights["table"]), np.random.default_rng()
    def logits(tokens):
        kept = random.random((*tokens.shape, facts.vocabulary)) > 0.1
        return table[tokens] * put(kept.astype(np.float32)) / 0.9
    return logits
    """
    trial = run(trainer(restore=dropout)).trial
    assert trial.verdict == "invalid"
    assert "the model is random (dropout left on?)" in trial.reason


def test_a_reference_that_is_better_everywhere_is_no_obstacle(run: Run) -> None:
    """Where no place gains on the champion, places are drawn alike."""
    case = run(trainer())
    worse = run(trainer(after="weights['table'] = weights['table'] * 0.5"))
    found = dataclasses.replace(worse, spec=dataclasses.replace(worse.spec, reference=case.spec.folder)).review()
    assert found.fault == ""
    assert np.isfinite(found.audit.hidden_bpb if found.audit else np.nan)
