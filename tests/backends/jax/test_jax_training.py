"""The step: slices, donated buffers, nothing compiled twice, a warm-up without a trace, low precision inside."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="JAX is not installed: uv pip install 'autoresearch[jax]'")


def batch_of(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 61, (rows, 17), dtype=np.int32)


def stepper_of(trainer, facts, slice_rows: int = 4, **choices):
    chosen = dataclasses.replace(trainer.choose(trainer.Machine(device="cpu")), **choices)
    return trainer.Stepper(trainer.build(facts, chosen), chosen, slice_rows)


def weights_of(stepper) -> dict[str, np.ndarray]:
    return {name: np.array(value) for name, value in stepper.weights.items()}


def test_the_warm_up_leaves_nothing_behind(load_trainer, facts):
    trainer = load_trainer()
    warmed, cold = stepper_of(trainer, facts), stepper_of(trainer, facts)
    before = weights_of(warmed)
    taken = []

    def batches():
        for seed in range(16):
            taken.append(seed)
            yield batch_of(8, seed=seed)

    warmed.warm(batches())
    assert 1 <= len(taken) <= 2
    for name, value in weights_of(warmed).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
    for step in range(3):
        assert warmed.step(batch_of(8, seed=step), 0.2 * step) == cold.step(batch_of(8, seed=step), 0.2 * step)
    for (name, value), other in zip(weights_of(warmed).items(), weights_of(cold).values(), strict=True):
        np.testing.assert_array_equal(value, other, err_msg=name)
    assert warmed.run._cache_size() == 1, "what was warmed is what runs"


def test_the_buffers_of_a_step_are_given_to_the_next(load_trainer, facts):
    stepper = stepper_of(load_trainer(), facts)
    before = jax.tree.leaves((stepper.weights, stepper.state))
    stepper.step(batch_of(8), 0.0)
    assert all(leaf.is_deleted() for leaf in before)


def test_neither_a_schedule_nor_a_search_of_rates_compiles_anew(load_trainer, facts):
    """The compile cache is keyed by the program: equal programs of other constants start warm."""
    texts = []
    for constants in (
        {},
        {"MATRIX_LR": 0.01, "EMBEDDING_LR": 0.1, "UNEMBEDDING_LR": 0.001, "SCALAR_LR": 0.1, "WEIGHT_DECAY": 0.5},
        {"ADAM_BETAS": (0.9, 0.99), "WARMUP_RATIO": 0.1, "WARMDOWN_RATIO": 0.9, "FINAL_LR_FRAC": 0.1},
    ):
        trainer = load_trainer(**constants)
        stepper = stepper_of(trainer, facts)
        tokens, rates = batch_of(8).reshape(2, 4, 17), trainer.rates_at(stepper.model.width, 5, 0.7)
        texts.append(stepper.run.lower(stepper.weights, stepper.state, tokens, rates).as_text())
    assert texts[0] == texts[1] == texts[2]


def test_a_step_in_slices_is_a_step_in_one_piece(load_trainer, facts):
    """By the running mean of gradients after the first step: the update itself would blow rounding up."""
    trainer = load_trainer()
    steppers = [stepper_of(trainer, facts, rows) for rows in (8, 2)]
    losses = [stepper.step(batch_of(8), 0.0) for stepper in steppers]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    whole, sliced = ([leaf for leaf in jax.tree.leaves(stepper.state) if leaf.ndim > 0] for stepper in steppers)
    for one, other in zip(whole, sliced, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)


@pytest.mark.long
def test_eager_steps_are_the_compiled_ones(load_trainer, facts):
    trainer = load_trainer(SCALAR_LR=0.0)
    losses = []
    for compiled in (True, False):
        stepper = stepper_of(trainer, facts, compiled=compiled)
        losses.append([stepper.step(batch_of(8, seed=step), 0.0) for step in range(3)])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_low_precision_stays_inside(load_trainer, facts):
    """bfloat16 activations follow float32 ones; weights, their updates and the logits stay float32."""
    trainer = load_trainer(SCALAR_LR=0.0)
    wide, narrow = stepper_of(trainer, facts), stepper_of(trainer, facts, dtype=jax.numpy.bfloat16)
    losses = [[stepper.step(batch_of(8, seed=step), 0.0) for step in range(4)] for stepper in (wide, narrow)]
    assert losses[0] != losses[1]
    np.testing.assert_allclose(losses[0], losses[1], rtol=2e-2)
    kept = [leaf for leaf in jax.tree.leaves((narrow.weights, narrow.state)) if leaf.ndim]
    assert {leaf.dtype for leaf in kept} == {np.dtype(np.float32)}
    assert narrow.with_weights(narrow.weights)(batch_of(1)[:, :-1]).dtype == np.float32


def test_training_learns_a_sequence_that_can_be_learnt(load_trainer, facts):
    stepper = stepper_of(load_trainer(), facts)
    starts = np.random.default_rng(0)
    losses = []
    for step in range(40):
        tokens = ((starts.integers(0, 61, (8, 1)) + 7 * np.arange(17)) % 61).astype(np.int32)
        losses.append(stepper.step(tokens, step / 40))
    assert losses[0] == pytest.approx(np.log(61), abs=0.02)
    assert losses[-1] < 0.5 * losses[0]


def test_a_zero_gradient_moves_nothing_and_makes_no_nan(load_trainer):
    trainer = load_trainer()
    weights = {"blocks.0.up.weight": np.random.default_rng(0).standard_normal((8, 4), np.float32)}
    transform = trainer.optimizer(trainer.rates_at(32, 0, 0.0), weights)
    zero = jax.tree.map(np.zeros_like, weights)
    updates, _ = transform.update(zero, transform.init(weights), weights)
    # A zero update agrees in sign with anything, so decay alone is at work.
    decayed = -trainer.MATRIX_LR * 2**0.5 * trainer.WEIGHT_DECAY * weights["blocks.0.up.weight"]
    np.testing.assert_allclose(updates["blocks.0.up.weight"], decayed, rtol=1e-5)


def test_the_optimizer_state_has_every_parameter_once(load_trainer, facts):
    stepper = stepper_of(load_trainer(DEPTH=4), facts)
    kept = [leaf.size for leaf in jax.tree.leaves(stepper.state.inner_states["matrices"].inner_state.momentum_buffer)]
    matrices = [value.size for name, value in stepper.weights.items() if name.startswith("blocks.")]
    assert sum(kept) == sum(matrices)
    assert len(kept) == 4, "one stack a shape: square, up, down and gate"
    adams = {name: stepper.state.inner_states[name] for name in stepper.state.inner_states if name != "matrices"}
    moments = sum(leaf.size for leaf in jax.tree.leaves(adams) if leaf.ndim)
    assert moments == 2 * (sum(value.size for value in stepper.weights.values()) - sum(matrices))
