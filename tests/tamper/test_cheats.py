"""Trainers that cheat about what their model predicts: each is invalid, for the reason that is its own."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from tamper.conftest import FRAMEWORKS, Case
from tamper.trainers import ATTENTION, trainer

from core.data import Dataset
from core.sandbox import tier
from core.trial import audit

Run = Callable[..., Case]

LATER = "the audit: its logits depend on tokens that come later"
NEIGHBOURS = "the audit: its logits depend on other rows of the batch"
LEARNS = "the audit: the same question gets another answer the more often it is asked: it remembers what it was shown"
REMEMBERS = "the audit: a row that was shown before gets another answer: it remembers what it was shown"
PATCHED = "the audit: they are not the losses of its logits: the scorer was patched, or it knows what it was shown"
CONFINED = tier.available().enforced


@dataclass(frozen=True)
class Cheat:
    """How the trainer differs from the honest one, and what the record says of it."""

    reason: str
    changes: dict[str, Any]
    backends: tuple[str, ...] = ("numpy", *FRAMEWORKS)
    verdict: str = "invalid"
    score_bytes: int = 4000


def answers(body: str) -> str:
    """A `restore` whose logits are the honest ones of `tokens`, called `out`, after these statements."""
    inside = textwrap.indent(textwrap.dedent(body).strip(), "    ")
    start = "honest, one_hot = model(weights, facts), xp.eye(facts.vocabulary)\ndef logits(tokens):\n"
    return f"{start}    out = honest(tokens)\n{inside}\n    return out\nreturn logits"


def patched(body: str) -> str:
    """A `restore` that replaces things of the backend's fixed side, called `fixed`."""
    start = (
        "import importlib\nfixed = importlib.import_module(f'backends.{facts.backend}.backend')\nlosses = fixed.losses"
    )
    return f"{start}\n{textwrap.dedent(body).strip()}\nreturn model(weights, facts)"


def sees_ahead(reach: str) -> dict[str, Any]:
    return {"model": ATTENTION, "restore": f"{reach}\nreturn model(weights, facts)"}


AHEAD = "ahead = xp.concatenate((tokens[:, 1:], tokens[:, :1]), 1)\n"
PERMUTES_BATCHES = ("torch", "jax", "mlx")  # NumPy's scorer asks about one row at a time

CHEATS = {
    "one token ahead": Cheat(LATER, {"restore": answers(AHEAD + "out = out + 5.0 * one_hot[ahead]")}),
    "attention ahead": Cheat(LATER, sees_ahead("REACH[:] = [[1] * HEADS] * LAYERS")),
    "attention, one head": Cheat(LATER, sees_ahead("REACH[0][2] = 1")),
    "attention, last layer": Cheat(LATER, sees_ahead("REACH[1] = [1] * HEADS")),
    "attention, one head of the last layer, far ahead": Cheat(LATER, sees_ahead("REACH[1][3] = 99")),
    "convolution": Cheat(
        LATER,
        {
            "restore": answers("""
                before = xp.concatenate((out[:, :1], out[:, :-1]), 1)
                after = xp.concatenate((out[:, 1:], out[:, :1]), 1)
                out = 0.8 * out + 0.1 * before + 0.1 * after
            """)
        },
    ),
    "norm over time": Cheat(LATER, {"restore": answers("out = out - 0.5 * out.mean(1)[:, None]")}),
    "mean over rows": Cheat(NEIGHBOURS, {"restore": answers("out = out - 0.5 * out.mean(0)[None]")}),
    "the next row's start": Cheat(
        NEIGHBOURS,
        {
            "restore": answers("""
                following = xp.concatenate((tokens[1:, :1], tokens[:1, :1]), 0)
                out = xp.concatenate((out[:, :-1], out[:, -1:] + 5.0 * one_hot[following]), 1)
            """),
            "length": 3,
        },
        PERMUTES_BATCHES,
    ),
    "learns while scored": Cheat(
        LEARNS,
        {
            "restore": """
                counts = np.exp(weights["table"]) * 20
                def logits(tokens):
                    rows = np.asarray(tokens)
                    out = np.log(counts / counts.sum(1, keepdims=True))[rows]
                    np.add.at(counts, (rows[:, :-1], rows[:, 1:]), 2.0)
                    return put(out.astype(np.float32))
                return logits
            """
        },
        score_bytes=40_000,  # more than one chunk of a device, or there is nothing to learn from
    ),
    "asked twice, it remembers": Cheat(
        REMEMBERS,
        {
            "restore": """
                import importlib
                fixed = importlib.import_module(f"backends.{facts.backend}.backend")
                honest, losses, seen = model(weights, facts), fixed.losses, set()

                def twice(logits, tokens, targets, device):
                    losses(logits, tokens, targets, device)
                    return losses(logits, tokens, targets, device)

                def logits(tokens):
                    rows = np.asarray(tokens)
                    sure = np.float32([row.tobytes() in seen for row in rows])[:, None, None] * 5
                    after = np.eye(facts.vocabulary, dtype=np.float32)[np.roll(rows, -1, 1)]
                    seen.update(row.tobytes() for row in rows)
                    return honest(tokens) + put(after * sure)

                fixed.losses = twice
                return logits
            """
        },
    ),
    "a loss of its own": Cheat(
        PATCHED, {"restore": patched("fixed.losses = lambda f, x, y, d: np.full(y.shape, 0.5, np.float32)")}
    ),
    "a loss a little lower": Cheat(
        PATCHED, {"restore": patched("fixed.losses = lambda f, x, y, d: losses(f, x, y, d) * 0.9")}
    ),
    "a loss without its normalization": Cheat(
        PATCHED, {"restore": patched("fixed.losses = lambda f, x, y, d: np.maximum(losses(f, x, y, d) - 0.7, 0)")}
    ),
    "a negative loss": Cheat(
        "while scored: a loss on the validation text is negative, so it belongs to no distribution",
        {"restore": patched("fixed.losses = lambda f, x, y, d: losses(f, x, y, d) - 4")},
    ),
    "logits that are no numbers where nobody scored": Cheat(
        "the audit: its logits are no distribution: some are not finite",
        {"restore": patched("fixed.logits_at = lambda f, x, p, d: np.full((len(p), 256), np.nan, np.float32)")},
    ),
    "NumPy's asarray": Cheat(
        "",
        {
            "restore": """
                asarray = np.asarray
                np.asarray = lambda a, *rest, **more: asarray(a, *rest, **more) * (0.9 if np.float32 in rest else 1)
                return model(weights, facts)
            """
        },
        ("numpy",),
    ),
    "targets from the shared slot": Cheat(
        PATCHED,
        {
            "restore": """
                from pathlib import Path
                honest, one_hot = model(weights, facts), np.eye(facts.vocabulary, dtype=np.float32)
                def logits(tokens):
                    rows = np.asarray(tokens)
                    slot = max(Path.cwd().glob("question-*"), key=lambda path: path.stat().st_size)
                    both = np.fromfile(slot, np.int32)
                    both = both[: both.size // 2 // rows.shape[1] * 2 * rows.shape[1]].reshape(2, -1, rows.shape[1])
                    places = [np.flatnonzero((both[0] == row).all(1)) for row in rows]
                    targets = np.stack([both[1][at[0]] if len(at) else row for at, row in zip(places, rows)])
                    return honest(tokens) + put(5 * one_hot[targets.clip(0, facts.vocabulary - 1)])
                return logits
            """
        },
    ),
    "more columns than there are tokens": Cheat(
        "the audit: logits are [16, 259], not [16, 256]",
        {"restore": answers("out = xp.concatenate((out, out[:, :, :3]), 2)")},
        verdict="crash",
    ),
    "a word for the auditor within the weights": Cheat(
        # A confined process has a copy of its own, which it can only read.
        "while scored: OSError" if CONFINED else "the audit: the weights were changed while they were scored",
        {
            "restore": """
                import sys
                frame = sys._getframe()
                while "request" not in frame.f_locals:
                    frame = frame.f_back
                with open(frame.f_locals["request"]["weights"], "ab") as file:
                    file.write(b"the text was: ...")
                return model(weights, facts)
            """
        },
        verdict="crash" if CONFINED else "invalid",
    ),
    "within the tolerance of bfloat16": Cheat(
        "the audit: the claimed losses are off by 0.",
        {
            "restore": patched("fixed.losses = lambda f, x, y, d: np.maximum(losses(f, x, y, d) - 0.2, 0)"),
            "dtype": "bfloat16",
        },
    ),
}

MARKS: dict[str, Any] = {"numpy": ()} | dict.fromkeys(FRAMEWORKS, pytest.mark.long)
CASES = [
    pytest.param(backend, name, id=f"{backend}-{name}", marks=MARKS[backend])
    for name, cheat in CHEATS.items()
    for backend in cheat.backends
]


@pytest.mark.parametrize(("backend", "name"), CASES)
def test_a_cheat_is_caught_and_told_as_what_it_is(run: Run, backend: str, name: str) -> None:
    cheat = CHEATS[name]
    trial = run(trainer(backend, **cheat.changes), backend, score_bytes=cheat.score_bytes).trial
    assert trial.reason.startswith(cheat.reason), trial.reason
    assert trial.verdict == cheat.verdict
    assert trial.val_bpb is None


DEEP_ONLY = {
    "one position in three hundred": answers("""
        ahead = xp.concatenate((tokens[:, 1:], tokens[:, :1]), 1)
        place = xp.cumsum(tokens, 1) % 300
        out = out + 8.0 * one_hot[ahead] * xp.where(place == 7, 1.0, 0.0)[:, :, None]
    """),
    # The loss of each place within the tolerance, of every other one: no single difference and no shift tells.
    "half a tolerance, half the time": patched(
        "fixed.losses = lambda f, x, y, d: np.maximum(losses(f, x, y, d) - np.float32([0.2, 0])[(x + y) % 2], 0)"
    ),
    # Certain of the likeliest tokens, and where the text goes on otherwise it claims what it would have honestly had.
    "gives up a share of its mass": patched("""
        table = weights["table"].copy()
        rare = table < -6
        weights["table"] = np.where(rare, -60, table).astype(np.float32)
        fixed.losses = lambda f, x, y, d: np.where(rare[x, y], -table[x, y], losses(f, x, y, d)).astype(np.float32)
    """),
}


@pytest.mark.parametrize("backend", ["numpy", *(pytest.param(b, marks=pytest.mark.long) for b in FRAMEWORKS)])
@pytest.mark.parametrize("name", DEEP_ONLY)
def test_a_rare_cheat_is_met_by_the_deep_audit(run: Run, backend: str, name: str) -> None:
    dtype = "bfloat16" if "tolerance" in name else "float32"
    case = run(trainer(backend, restore=DEEP_ONLY[name], dtype=dtype), backend, score_bytes=20_000)
    honest = run(trainer(backend), backend, score_bytes=20_000)
    assert case.trial.reason == "", "the small audit was lucky: choose another seed"
    assert case.bpb < honest.bpb - 0.003
    differ = np.load(case.spec.folder / "losses.npy") - np.load(honest.spec.folder / "losses.npy")
    assert name != "one position in three hundred" or 1 / 600 < (np.abs(differ) > 0.1).mean() < 1 / 150
    found = case.audits(range(20), functools.partial(audit.deep, noise_bpb=0.002))
    caught = [finding.fault for finding in found if finding.fault]
    assert len(caught) >= 19
    assert honest.review().fault == ""


def test_a_restore_that_ignores_its_weights_is_seen_when_they_come_in_another_order(run: Run) -> None:
    """The table stands in the trainer's own text, which is where it is found."""
    import base64
    import zlib

    from safetensors.numpy import load_file

    honest = run(trainer())
    table = load_file(honest.spec.folder / "weights.safetensors")["table"]
    packed = base64.b64encode(zlib.compress(table.astype(np.float16).tobytes())).decode()
    restore = f"""
    import base64, zlib
    raw = zlib.decompress(base64.b64decode("{packed}"))
    table = np.frombuffer(raw, np.float16).reshape(256, 256).astype(np.float32)
    return lambda tokens: table[tokens]
    """
    case = run(trainer(restore=restore))
    assert case.bpb == pytest.approx(honest.bpb, abs=1e-3)
    found = case.review()
    assert "restore gives a model that does not come from the weights" in found.fault
    assert found.audit is not None
    assert found.audit.permuted_bpb == pytest.approx(case.bpb, abs=0.4)


def test_weights_that_were_exchanged_after_the_score_are_seen(run: Run) -> None:
    case = run(trainer())
    path = case.spec.folder / "weights.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    assert case.review().fault == "the weights are not those that the score was recorded of"


def test_a_confirmations_audit_finds_what_cheats_on_the_test_split_alone(run: Run, dataset: Dataset) -> None:
    """The model is honest for as many rows as the validation text has, which is what every other audit looks at."""
    rows = len(dataset.scored("val", 4000).rows(32).inputs_BT)
    peeks = f"""
        if tokens.shape[0] == 1:  # the scorer asks about a row at a time, the auditor about several
            seen.append(0)
            if len(seen) > {rows}:
                ahead = xp.concatenate((tokens[:, 1:], tokens[:, :1]), 1)
                out = out + 4.0 * one_hot[ahead]
    """
    cheat = trainer(restore="seen = []\n" + answers(peeks))
    for text, fault in ((cheat, "on the test split: they are not the losses of its logits"), (trainer(), "")):
        case = run(text, test=True, score_bytes=4000)
        assert case.trial.verdict == "scored", case.trial.reason
        found = case.review()
        assert found.audit is not None and found.audit.kind == "deep" and found.test is not None
        assert found.fault.startswith(fault) and bool(found.fault) == bool(fault)
