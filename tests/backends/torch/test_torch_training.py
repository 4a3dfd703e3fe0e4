"""The optimizers, the schedule and a step: against references in float64, and against a step in one piece."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

CPU = {"device": "cpu"}


def batch_of(rows: int, length: int = 17, vocabulary: int = 61, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, vocabulary, (rows, length), dtype=np.int32)


def stepper_of(trainer, facts, slice_rows: int = 4):
    choices = trainer.choose(trainer.Machine(**CPU))
    return trainer.Stepper(trainer.build(facts, choices), choices, slice_rows)


def state_of(stepper) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in stepper.model.state_dict().items()}


@pytest.mark.parametrize("shape", [(3, 32, 32), (2, 64, 16), (2, 16, 64), (1, 1, 32)])
def test_orthogonalization_brings_singular_values_near_one(load_trainer, shape):
    trainer = load_trainer()
    matrices = (
        torch.randn(shape, generator=torch.Generator().manual_seed(1)) * torch.logspace(-2, 2, shape[0])[:, None, None]
    )
    out = trainer.orthogonalize(matrices)
    values = torch.linalg.svdvals(out)
    assert out.shape == matrices.shape
    assert values.min() > 0.7
    assert values.max() < 1.2
    # The same singular vectors: what is turned back is symmetric and positive.
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    core = left.mT @ out @ right.mT
    torch.testing.assert_close(core, torch.diag_embed(core.diagonal(dim1=-2, dim2=-1)), atol=1e-3, rtol=0)
    assert core.diagonal(dim1=-2, dim2=-1).min() > 0


def test_a_zero_gradient_moves_nothing_and_makes_no_nan(load_trainer):
    trainer = load_trainer()
    weight = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    before = weight.clone()
    state = (torch.zeros(1, 8, 4), torch.zeros(1, 8, 1), torch.float32)
    trainer.muon_update(0.1, 0.9, 0.0, [weight], [torch.zeros_like(weight)], *state)
    torch.testing.assert_close(weight, before, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(12, 5), (5, 12), (6, 6)])
def test_muon_is_its_formula(load_trainer, shape):
    """Three steps against NumPy in float64, written from the papers' formulas one matrix at a time."""
    trainer = load_trainer()
    generator = np.random.default_rng(2)
    weights = [generator.standard_normal(shape) for _ in range(2)]
    tensors = [torch.from_numpy(weight).float() for weight in weights]
    axis = 1 if shape[0] >= shape[1] else 0
    longer = (shape[0], 1) if axis == 1 else (1, shape[1])
    average, variance = torch.zeros(2, *shape), torch.zeros(2, *longer)
    averages, variances = [np.zeros(shape) for _ in weights], [np.zeros(longer) for _ in weights]
    for step in range(3):
        rate, momentum, decay = 0.05, 0.85 + 0.03 * step, 0.3
        gradients = [generator.standard_normal(shape) for _ in weights]
        for index, gradient in enumerate(gradients):
            averages[index] += (1 - momentum) * (gradient - averages[index])
            update = (1 - momentum) * gradient + momentum * averages[index]
            update = update / (np.linalg.norm(update) * 1.02 + 1e-6)
            left, values, right = np.linalg.svd(update, full_matrices=False)
            for a, b, c in trainer.POLAR_EXPRESS:
                values = a * values + b * values**3 + c * values**5
            update = left @ np.diag(values) @ right
            square = (update**2).mean(axis, keepdims=True)
            variances[index] += (1 - trainer.MUON_BETA2) * (square - variances[index])
            normed = update / np.sqrt(variances[index])
            update = normed * np.linalg.norm(update) / np.linalg.norm(normed)
            agrees = update * weights[index] >= 0
            weights[index] = weights[index] - rate * (update + decay * weights[index] * agrees)
        floats = [torch.from_numpy(gradient).float() for gradient in gradients]
        trainer.muon_update(rate, momentum, decay, tensors, floats, average, variance, torch.float32)
    for tensor, weight in zip(tensors, weights, strict=True):
        np.testing.assert_allclose(tensor.numpy(), weight, rtol=2e-4, atol=2e-4)


def test_every_parameter_has_one_group(load_trainer, facts):
    trainer = load_trainer(DEPTH=4)
    stepper = stepper_of(trainer, facts)
    groups = stepper.optimizer.param_groups
    assert sorted(id(p) for group in groups for p in group["params"]) == sorted(map(id, stepper.model.parameters()))
    muon = [group for group in groups if "betas" not in group]
    assert [{tuple(p.shape) for p in group["params"]} for group in muon] == [
        {(64, 64)},
        {(256, 64)},
        {(64, 256)},
        {(4, 32)},
    ]
    # One running size for each row or column of the longer side; rows where both are equal.
    assert [tuple(group["variance"].shape) for group in muon] == [(16, 64, 1), (4, 256, 1), (4, 1, 64 * 4), (2, 1, 32)]
    square, tall, _, _ = (group["initial_lr"] for group in muon)
    assert tall == pytest.approx(2 * square), "a matrix of four times as many rows as columns moves twice as far"


def test_adamw_is_pytorchs_own_with_the_rates_of_the_file(load_trainer, facts):
    trainer = load_trainer()
    stepper, reference = stepper_of(trainer, facts), stepper_of(trainer, facts)
    by_width = (reference.model.width / 768) ** -0.5
    others = [reference.model.embedding, *reference.model.value_embeddings.values()]
    adam = torch.optim.AdamW(
        [
            {"params": others, "lr": trainer.EMBEDDING_LR * by_width},
            {"params": [reference.model.unembedding.weight], "lr": trainer.UNEMBEDDING_LR * by_width},
            {"params": [reference.model.resid_lambdas], "lr": trainer.SCALAR_LR / 100, "eps": trainer.SCALAR_EPSILON},
            {
                "params": [reference.model.x0_lambdas],
                "lr": trainer.SCALAR_LR,
                "betas": trainer.X0_BETAS,
                "eps": trainer.SCALAR_EPSILON,
            },
        ],
        betas=trainer.ADAM_BETAS,
        eps=trainer.ADAM_EPSILON,
        weight_decay=0.0,
        foreach=False,
    )
    generator = torch.Generator().manual_seed(4)
    for _ in range(3):
        for left, right in zip(stepper.model.parameters(), reference.model.parameters(), strict=True):
            left.grad = torch.randn(left.shape, generator=generator)
            right.grad = left.grad.clone()
        stepper.optimizer.step()
        adam.step()
    moved = dict(stepper.model.named_parameters())
    for name, value in reference.model.named_parameters():
        if not name.startswith("blocks."):
            torch.testing.assert_close(moved[name], value, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    ("warmup", "warmdown", "final", "expected"),
    [
        (0.0, 0.5, 0.0, {0: 1, 0.25: 1, 0.5: 1, 0.75: 0.5, 1: 0}),
        (0.2, 0.4, 0.1, {0: 0, 0.1: 0.5, 0.2: 1, 0.6: 1, 0.8: 0.55, 1: 0.1}),
        (0.0, 1.0, 0.05, {0: 1, 0.5: 0.525, 1: 0.05}),
        (0.0, 0.0, 0.0, {0: 1, 0.99: 1, 1: 1}),
    ],
)
def test_the_schedule(load_trainer, warmup, warmdown, final, expected):
    trainer = load_trainer(WARMUP_RATIO=warmup, WARMDOWN_RATIO=warmdown, FINAL_LR_FRAC=final)
    assert {progress: trainer.rate_at(progress) for progress in expected} == pytest.approx(expected)


def test_rates_momentum_and_decay_follow_the_schedule(load_trainer, facts):
    trainer = load_trainer(WEIGHT_DECAY=0.2, WARMDOWN_RATIO=0.5, MATRIX_LR=0.04)
    optimizer = stepper_of(trainer, facts).optimizer
    seen = []
    for step, progress in ((0, 0.0), (150, 0.5), (300, 0.75), (900, 1.0)):
        optimizer.schedule(step, progress)
        seen.append((optimizer.param_groups[4]["lr"], optimizer.momentum, optimizer.weight_decay))
    np.testing.assert_allclose(seen, [(0.04, 0.85, 0.2), (0.04, 0.9, 0.1), (0.02, 0.95, 0.05), (0, 0.95, 0)])


@pytest.mark.parametrize(
    ("total", "length", "device_rows", "expected"),
    [
        (524288, 2048, 128, (256, 2)),
        (8192, 256, 32, (32, 1)),
        (8192, 256, 8, (32, 4)),
        (100, 256, 32, (1, 1)),  # fewer tokens than one row
        (5 * 256, 256, 4, (4, 2)),  # five rows in slices of at most four: two of two
        (7 * 256, 256, 4, (8, 2)),
        (9999, 128, 16, (80, 5)),
    ],
)
def test_any_batch_becomes_whole_equal_slices(load_trainer, total, length, device_rows, expected):
    assert load_trainer().batch_shape(total, length, device_rows) == expected


def test_batches_of_any_size_fit_the_device_and_come_near_what_was_asked(load_trainer):
    trainer = load_trainer()
    random = np.random.default_rng(0)
    for total, length, device_rows in zip(
        random.integers(1, 2**18, 500).tolist(),
        random.choice([64, 128, 256, 2048], 500).tolist(),
        random.integers(1, 200, 500).tolist(),
        strict=True,
    ):
        rows, slices = trainer.batch_shape(total, length, device_rows)
        assert rows >= 1
        assert rows % slices == 0
        assert rows // slices <= device_rows
        assert abs(rows - total / length) <= max(1, slices / 2 + 1)


def test_fewer_rows_on_the_device_leave_the_rows_of_a_step_as_they_were(load_trainer):
    trainer = load_trainer()
    random = np.random.default_rng(1)
    for total, device_rows in zip(
        random.integers(1, 2**16, 300).tolist(), random.integers(2, 200, 300).tolist(), strict=True
    ):
        rows, slices = trainer.batch_shape(total, 64, device_rows)
        assert trainer.batch_shape(total, 64, device_rows, device_rows) == (rows, slices)
        again, more = trainer.batch_shape(total, 64, device_rows, device_rows // 2)
        assert again == rows
        assert rows % more == 0
        assert rows // more <= device_rows // 2
    assert trainer.batch_shape(2**19, 2048, 128, 64) == (256, 4)
    assert trainer.batch_shape(15 * 64, 64, 5, 2) == (15, 15)


@pytest.mark.parametrize("slice_rows", [1, 2, 4])
def test_a_step_in_slices_has_the_gradient_of_one_piece(load_trainer, facts, slice_rows):
    trainer = load_trainer()
    gradients, losses = [], []
    for rows in (8, slice_rows):
        stepper = stepper_of(trainer, facts, rows)
        stepper.optimizer.step = lambda model=stepper.model: gradients.append(
            {name: value.grad.clone() for name, value in model.named_parameters()}
        )
        losses.append(stepper.step(batch_of(8), progress=0.0))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert any(value.abs().max() > 1e-3 for value in gradients[0].values())
    for name, whole in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], whole, atol=1e-6, rtol=1e-4, msg=name)


def test_the_warm_up_leaves_nothing_behind(load_trainer, facts):
    trainer = load_trainer()
    warmed, cold = stepper_of(trainer, facts), stepper_of(trainer, facts)
    before = state_of(warmed)
    taken = []

    def batches():
        for seed in range(16):
            taken.append(seed)
            yield batch_of(4, seed=seed)

    warmed.warm(batches())
    assert 1 <= len(taken) <= 3
    for name, value in warmed.model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    for step in range(3):
        assert warmed.step(batch_of(8, seed=step), 0.2 * step) == cold.step(batch_of(8, seed=step), 0.2 * step)
    for (name, value), other in zip(state_of(warmed).items(), state_of(cold).values(), strict=True):
        torch.testing.assert_close(value, other, rtol=0, atol=0, msg=name)


def test_training_learns_a_sequence_that_can_be_learnt(load_trainer, facts):
    trainer = load_trainer()
    stepper = stepper_of(trainer, facts)
    starts = np.random.default_rng(0)
    losses = []
    for step in range(40):
        first = starts.integers(0, facts.vocabulary, (8, 1))
        tokens = ((first + 7 * np.arange(17)) % facts.vocabulary).astype(np.int32)
        losses.append(stepper.step(tokens, step / 40))
    assert losses[0] == pytest.approx(np.log(facts.vocabulary), abs=0.02)
    assert losses[-1] < 0.5 * losses[0]


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
        with torch.no_grad():  # they start at zero, where neither the scales nor the other matrices have a gradient
            for block in stepper.model.blocks:
                block.attention.output.weight.fill_(0.1).fill_diagonal_(1.0)
                block.down.weight.fill_(0.1).fill_diagonal_(1.0)
        before = state_of(stepper)
        stepper.step(batch_of(8), progress=0.0)
        return {name: float((value - before[name]).norm()) for name, value in stepper.model.state_dict().items()}

    base = moved()
    assert all(distance > 1e-3 for distance in base.values()), base
    own = {"EMBEDDING_LR": 0.6, "UNEMBEDDING_LR": 0.004, "SCALAR_LR": 0.5, "MATRIX_LR": 0.04}
    for constant, names in kinds.items():
        other = moved(**{constant: own[constant] * 10})
        for name, distance in base.items():
            factor = 10.0 if name.endswith(names) else 1.0
            assert other[name] == pytest.approx(distance * factor, rel=1e-3, abs=1e-9), (constant, name)


def test_an_overflow_in_float16_skips_the_step_and_halves_the_scale(load_trainer, facts):
    trainer = load_trainer()
    stepper = stepper_of(trainer, facts)
    stepper.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    before = state_of(stepper)
    loss = stepper.loss
    stepper.loss = lambda tokens: loss(tokens) * 1e38  # finite, and its scaled gradient is not
    stepper.step(batch_of(4), progress=0.0)
    for name, value in stepper.model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0, msg=name)
    assert stepper.scaler.get_scale() == 2.0**39
    stepper.loss = loss
    stepper.step(batch_of(4), progress=0.0)
    assert any(not torch.equal(value, before[name]) for name, value in stepper.model.state_dict().items())


def test_a_gradient_scale_does_not_change_the_step(load_trainer, facts):
    trainer = load_trainer()
    plain, scaled = stepper_of(trainer, facts), stepper_of(trainer, facts)
    scaled.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)  # a power of two: exact
    for step in range(2):
        tokens = batch_of(8, seed=step)
        assert plain.step(tokens, 0.0) == scaled.step(copy.copy(tokens), 0.0)
    for (name, value), other in zip(state_of(plain).items(), state_of(scaled).values(), strict=True):
        torch.testing.assert_close(value, other, rtol=1e-6, atol=1e-6, msg=name)


def test_a_steps_rows_go_to_the_models_device(load_trainer, facts):
    stepper = stepper_of(load_trainer(), facts)
    assert stepper.to_device(batch_of(3)).tolist() == batch_of(3).tolist()
    stepper.device = torch.device("meta")
    assert stepper.to_device(batch_of(3)).device.type == "meta"
