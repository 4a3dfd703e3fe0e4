"""A step in MLX: slices, warm-up, schedule, and that the state that a compiled step captures stays the same."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core", reason="MLX is not installed here", exc_type=ImportError)


def batch_of(rows: int, length: int = 17, vocabulary: int = 61, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, vocabulary, (rows, length), dtype=np.int32)


def stepper_of(trainer, facts, slice_rows: int = 4, compiler: str = "eager") -> Any:
    choices = trainer.choose(trainer.Machine(device="cpu", compiler=True), compiler)
    return trainer.Stepper(trainer.build(facts, choices), choices, slice_rows)


def leaves(tree: Any) -> dict[str, np.ndarray]:
    from mlx.utils import tree_flatten

    return {name: np.array(value) for name, value in dict(tree_flatten(tree)).items()}


def test_every_parameter_has_one_optimizer(load_trainer, facts):
    stepper = stepper_of(load_trainer(DEPTH=4), facts)
    *adams, muon = (leaves(optimizer.state) for optimizer in stepper.optimizer.optimizers)
    held = [name.removesuffix(".m") for state in adams for name in state if name.endswith(".m")]
    parameters = leaves(stepper.model.parameters())
    assert sorted(held) == sorted(name for name in parameters if not name.startswith("blocks."))
    buffers = {name: value.shape for name, value in muon.items() if name.endswith("momentum_buffer")}
    assert len(buffers) == 4, "one group a shape: square, up, down and gate"
    held_by_muon = sum(int(np.prod(shape)) for shape in buffers.values())
    assert held_by_muon == sum(value.size for name, value in parameters.items() if name.startswith("blocks."))


def test_a_step_in_slices_is_a_step_in_one_piece(load_trainer, facts):
    """The mean of the slices' gradients, before any optimizer: orthogonalization would blow rounding up."""
    trainer = load_trainer()
    seen: list[dict[str, np.ndarray]] = []
    losses = []
    for slice_rows in (8, 4, 2, 1):
        stepper = stepper_of(trainer, facts, slice_rows)
        stepper.optimizer.update = lambda model, gradients: seen.append(leaves(gradients))
        losses.append(stepper.step(batch_of(8), progress=0.0))
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-6)
    for sliced in seen[1:]:
        for name, whole in seen[0].items():
            np.testing.assert_allclose(sliced[name], whole, atol=1e-6, rtol=1e-4, err_msg=name)


def test_the_warm_up_leaves_nothing_behind(load_trainer, facts):
    trainer = load_trainer()
    warmed, cold = stepper_of(trainer, facts), stepper_of(trainer, facts)
    before = leaves(warmed.state)
    taken = []

    def batches():
        for seed in range(16):
            taken.append(seed)
            yield batch_of(12, seed=seed)

    warmed.warm(batches())
    assert 1 <= len(taken) <= 3
    for name, value in leaves(warmed.state).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
    for step in range(3):
        assert warmed.step(batch_of(8, seed=step), 0.2 * step) == cold.step(batch_of(8, seed=step), 0.2 * step)
    for name, value in leaves(warmed.state).items():
        np.testing.assert_array_equal(value, leaves(cold.state)[name], err_msg=name)


def test_a_step_changes_leaves_and_keeps_containers(load_trainer, facts):
    """A compiled step writes to the containers that it was made with: none may be replaced."""

    def containers(tree: Any) -> list[int]:
        if not isinstance(tree, (dict, list)):
            return []
        inner = tree.values() if isinstance(tree, dict) else tree
        return [id(tree), *(identity for value in inner for identity in containers(value))]

    stepper = stepper_of(load_trainer(), facts)
    before, values = containers(stepper.state), leaves(stepper.state)
    stepper.warm([batch_of(8)])
    stepper.step(batch_of(8), progress=0.1)
    assert containers(stepper.state) == before
    changed = [name for name, value in leaves(stepper.state).items() if not np.array_equal(value, values[name])]
    assert {name for name in changed if name.startswith("0.")} >= {"0.embedding", "0.blocks.0.down.weight"}
    assert "1.states.0.step" in changed


@pytest.mark.parametrize(
    ("warmup", "warmdown", "final", "expected"),
    [
        (0.0, 0.5, 0.0, {0: 1, 0.25: 1, 0.5: 1, 0.75: 0.5, 1: 0}),
        (0.2, 0.4, 0.1, {0: 0, 0.1: 0.5, 0.2: 1, 0.6: 1, 0.8: 0.55, 1: 0.1}),
        (0.0, 0.0, 0.0, {0: 1, 0.99: 1, 1: 1}),
    ],
)
def test_the_schedule(load_trainer, warmup, warmdown, final, expected):
    trainer = load_trainer(WARMUP_RATIO=warmup, WARMDOWN_RATIO=warmdown, FINAL_LR_FRAC=final)
    assert {progress: trainer.rate_at(progress) for progress in expected} == pytest.approx(expected)


def test_rates_momentum_and_decay_follow_the_schedule(load_trainer, facts):
    trainer = load_trainer(WEIGHT_DECAY=0.2, WARMDOWN_RATIO=0.5, MATRIX_LR=0.04)
    stepper = stepper_of(trainer, facts)
    muon = stepper.optimizer.optimizers[-1].state
    seen = []
    for step, progress in ((0, 0.0), (150, 0.5), (300, 0.75), (900, 1.0)):
        stepper.optimizer.schedule(step, progress)
        seen.append([muon[name].item() for name in ("learning_rate", "momentum", "weight_decay")])
    np.testing.assert_allclose(seen, [(0.04, 0.85, 0.2), (0.04, 0.9, 0.1), (0.02, 0.95, 0.05), (0, 0.95, 0)], rtol=1e-6)


def test_the_learning_rates_of_the_file_are_those_that_run(load_trainer, facts):
    """Ten times the rate moves each kind of parameter further; a rate of another kind does not move it."""
    kinds = {
        "EMBEDDING_LR": ("embedding", "value_embeddings.1"),
        "UNEMBEDDING_LR": ("unembedding.weight",),
        "SCALAR_LR": ("resid_lambdas", "x0_lambdas"),
        "MATRIX_LR": tuple(f"{name}.weight" for name in "query key value gate output up down".split()),
    }

    def moved(**constants: float) -> dict[str, float]:
        stepper = stepper_of(load_trainer(WEIGHT_DECAY=0.0, **constants), facts)
        for block in stepper.model.blocks:  # zero at first, where neither scales nor other matrices have a gradient
            for matrix in (block.attention.output, block.down):
                matrix.weight = 0.1 + 0.9 * mx.eye(*matrix.weight.shape)
        before = leaves(stepper.model.parameters())
        stepper.step(batch_of(8), progress=0.0)
        after = leaves(stepper.model.parameters())
        return {name: float(np.linalg.norm(after[name] - value)) for name, value in before.items()}

    base = moved()
    assert all(distance > 1e-3 for distance in base.values()), base
    own = {"EMBEDDING_LR": 0.6, "UNEMBEDDING_LR": 0.004, "SCALAR_LR": 0.5, "MATRIX_LR": 0.04}
    for constant, names in kinds.items():
        other = moved(**{constant: own[constant] * 10})
        for name, distance in base.items():
            factor = 10.0 if name.endswith(names) else 1.0
            assert other[name] == pytest.approx(distance * factor, rel=1e-3, abs=1e-9), (constant, name)


def test_training_learns_a_sequence_that_can_be_learnt(load_trainer, facts):
    stepper = stepper_of(load_trainer(), facts)
    starts = np.random.default_rng(0)
    losses = []
    for step in range(40):
        first = starts.integers(0, facts.vocabulary, (8, 1))
        losses.append(stepper.step(((first + 7 * np.arange(17)) % facts.vocabulary).astype(np.int32), step / 40))
    assert losses[0] == pytest.approx(np.log(facts.vocabulary), abs=0.02)
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.long  # without Metal, MLX builds the fused kernels of a step with g++, some sixty of them, one by one
def test_a_compiled_step_is_an_eager_one_and_is_traced_once(load_trainer, facts):
    trainer = load_trainer(DEPTH=1, WINDOW_PATTERN="L")
    if not trainer.Machine.of("cpu").compiler:
        pytest.skip("MLX builds its fused CPU kernels with g++, which is not on the path")
    traced = []
    eager = stepper_of(trainer, facts)
    update = trainer.Stepper._update

    def traced_update(*arguments):
        traced.append(1)
        return update(*arguments)

    trainer.Stepper._update = traced_update
    compiled = stepper_of(trainer, facts, compiler="compile")
    before = leaves(compiled.state)
    compiled.warm(batch_of(12, seed=seed) for seed in range(2))
    for name, value in leaves(compiled.state).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
    after_warm_up = len(traced)
    for step in range(4):
        ours, theirs = (stepper.step(batch_of(12, seed=step), step / 4) for stepper in (compiled, eager))
        assert ours == pytest.approx(theirs, abs=1e-5)
    # The rates changed with every step: none of them is part of the graph.
    assert len(traced) == after_warm_up
    for name, value in leaves(compiled.model.parameters()).items():
        np.testing.assert_allclose(value, leaves(eager.model.parameters())[name], atol=1e-4, err_msg=name)


@pytest.fixture
def limits() -> Iterator[None]:
    """Leaves MLX's limits as they were."""
    memory, cache = mx.set_memory_limit(2**40), mx.set_cache_limit(2**40)
    mx.clear_cache()
    yield
    mx.set_memory_limit(memory)
    mx.set_cache_limit(cache)


@pytest.mark.usefixtures("limits")
def test_the_cache_holds_what_a_steps_rows_need_and_no_more(load_trainer, facts):
    """The allocator is MLX's own on a CPU as well; only the trainer leaves its limits alone there."""
    trainer = load_trainer()
    caps = []
    for slice_rows in (2, 8):
        gc.collect()  # what earlier tests left would be freed while this one counts
        mx.set_cache_limit(2**40)
        mx.clear_cache()
        mx.reset_peak_memory()
        stepper = stepper_of(trainer, facts, slice_rows)
        stepper.warm(batch_of(8) for _ in range(3))
        trainer.limit_cache("cpu")
        assert mx.set_cache_limit(2**40) == 2**40, "not on a CPU"
        taken = mx.get_peak_memory() - mx.get_active_memory()
        trainer.limit_cache("gpu")
        for _ in range(4):
            stepper.step(batch_of(8), progress=0.1)
        kept = mx.get_cache_memory()
        caps.append(mx.set_cache_limit(2**40))
        assert caps[-1] == taken * 3 // 2
        assert kept <= caps[-1]
    assert caps[1] > 1.2 * caps[0], "more rows, more to keep"


@pytest.mark.usefixtures("limits")
def test_the_scoring_process_has_the_trainers_limits(load_trainer, facts, monkeypatch):
    trainer = load_trainer()
    asked: list[str] = []
    monkeypatch.setattr(trainer, "limit_memory", asked.append)
    weights = {name: np.array(value) for name, value in trainer.named(trainer.GPT(61).parameters()).items()}
    trainer.restore(weights, facts)
    assert asked == [facts.device]
    monkeypatch.undo()
    monkeypatch.setattr(mx, "device_info", lambda: {"max_recommended_working_set_size": 2**33})
    monkeypatch.setattr(mx, "set_wired_limit", lambda size: asked.append(str(size)))  # Metal's alone
    trainer.limit_memory("gpu")
    assert asked[-1] == str(2**33)
    assert (mx.set_memory_limit(2**40), mx.set_cache_limit(2**40)) == (2**33, 2**32)
