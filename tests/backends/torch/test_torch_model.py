"""The model: its size, what a position may see, and that weights alone bring it back."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
import pytest
import torch

import backends
import presets
from core.trainer.constants import read_constants


def tokens_of(rows: int, length: int, vocabulary: int = 61, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, vocabulary, (rows, length), dtype=np.int32))


def random_model(trainer, facts) -> Any:
    """A model whose every parameter is random: nothing that starts at zero hides a path."""
    model = trainer.build(facts, trainer.choose(trainer.Machine(device="cpu")))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, value in model.named_parameters():
            scale = 1.0 if "embedding" in name or "scales" in name else value.shape[-1] ** -0.5
            value.copy_(torch.randn(value.shape, generator=generator) * scale)
    return model


@pytest.fixture
def h100(load_trainer):
    preset = presets.load("h100")
    return preset, load_trainer(full=True, **preset.trainer_constants())


def test_the_h100_preset_has_upstreams_size_and_batch(h100):
    preset, trainer = h100
    with torch.device("meta"):
        model = trainer.GPT(preset.vocabulary)
    assert sum(value.numel() for value in model.parameters()) == 50_332_176
    assert sum(value.numel() for value in model.state_dict().values()) == 50_332_176
    rows, slices = trainer.batch_shape(trainer.TOTAL_BATCH_SIZE, trainer.SEQUENCE_LENGTH, preset.device_batch_size)
    assert rows * trainer.SEQUENCE_LENGTH == 2**19
    assert (rows, slices) == (256, 2)
    # Six a multiplied parameter, and the windows: six layers see 1024 keys, the fourth and the last all 2048.
    assert model.flops_per_token() == 6 * (8192 * 512 + 8 * 12 * 512**2 + 4 * 32 * 4) + 12 * 512 * (6 * 1024 + 2 * 2048)


def test_the_file_itself_has_the_h100s_constants(h100):
    preset, _ = h100
    own = read_constants(backends.trainer_path("torch").read_text(encoding="utf-8"))
    assert {name: own[name] for name in preset.trainer_constants()} == preset.trainer_constants()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_forward_and_backward_at_the_h100s_shapes(h100, dtype):
    preset, trainer = h100
    with torch.device("meta"):
        model = trainer.GPT(preset.vocabulary, dtype=dtype)
        batch = torch.empty(preset.device_batch_size, preset.sequence_length + 1, dtype=torch.int32)
    assert model(batch[:, :-1]).shape == (128, 2048, 8192)
    model.loss(batch).backward()
    for name, value in model.named_parameters():
        assert value.grad is not None, name
        assert (value.grad.shape, value.grad.dtype) == (value.shape, torch.float32), name


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
@pytest.mark.parametrize(("aspect", "head"), [(16, 16), (24, 16), (16, 64)])
def test_depth_alone_scales_the_model(load_trainer, facts, depth, aspect, head):
    trainer = load_trainer(DEPTH=depth, ASPECT_RATIO=aspect, HEAD_DIM=head)
    model = trainer.build(facts, trainer.choose(trainer.Machine(device="cpu")))
    assert len(model.blocks) == depth
    assert model.width % head == 0
    assert 0 <= model.width - depth * aspect < head
    assert list(model.value_embeddings) == [str(layer) for layer in range(depth) if (depth - 1 - layer) % 2 == 0]
    model.loss(tokens_of(2, 17)).backward()


@pytest.mark.parametrize(
    ("pattern", "depth", "expected"),
    [
        ("L", 3, [None, None, None]),
        ("SSSL", 8, [8, 8, 8, None, 8, 8, 8, None]),
        ("SL", 3, [8, None, None]),
        ("S", 2, [8, None]),
    ],
)
def test_windows_follow_the_pattern_and_the_last_layer_sees_all(load_trainer, pattern, depth, expected):
    assert load_trainer().windows(pattern, depth, 16) == expected


@pytest.mark.parametrize("pattern", ["L", "SL"])
def test_no_position_sees_a_later_token(load_trainer, facts, pattern):
    trainer = load_trainer(WINDOW_PATTERN=pattern)
    model = random_model(trainer, facts)
    tokens = tokens_of(2, 16)
    before = model(tokens)
    for changed in (0, 7, 15):
        other = tokens.clone()
        other[0, changed] = (other[0, changed] + 1) % facts.vocabulary
        after = model(other)
        moved = (after - before).abs().amax(-1) > 0
        assert not moved[0, :changed].any(), "a logit before the changed token moved"
        assert moved[0, changed], "the changed token's own logits did not move"
        assert not moved[1].any(), "rows see each other"


def test_a_window_of_w_sees_w_keys_before_its_own(load_trainer):
    trainer = load_trainer()
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 12, 2, 16, generator=generator) for _ in range(3))
    for window in (1, 4, 10, None):
        attend = trainer.attention("sdpa", window)
        before = attend(q, k, v)
        for changed in range(12):
            other = v.clone()
            other[0, changed] += 1.0
            moved = (attend(q, k, other) - before).abs().amax((-2, -1))[0] > 0
            last = 11 if window is None else min(11, changed + window)
            assert torch.nonzero(moved).flatten().tolist() == list(range(changed, last + 1)), (window, changed)


def test_attention_is_the_masked_softmax(load_trainer):
    trainer = load_trainer()
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 12, 2, 16, generator=generator, dtype=torch.float64) for _ in range(3))
    for window in (3, 11, None):
        scores = torch.einsum("bqnh,bknh->bnqk", q, k) / 4.0
        age = torch.arange(12)[:, None] - torch.arange(12)
        seen = (age >= 0) & (age <= (12 if window is None else window))
        expected = torch.einsum("bnqk,bknh->bqnh", scores.masked_fill(~seen, -torch.inf).softmax(-1), v)
        torch.testing.assert_close(trainer.attention("sdpa", window)(q, k, v), expected)


def test_rotation_depends_on_distance_alone_and_turns_by_minus_theta(load_trainer, facts):
    trainer = load_trainer()
    model = trainer.build(facts, trainer.choose(trainer.Machine(device="cpu")))
    vector = torch.randn(16, generator=torch.Generator().manual_seed(0))
    turned = trainer.rotate(vector.expand(1, 16, 1, 16), model.rotary)[0, :, 0]
    products = turned @ turned.T
    for distance in (1, 5):
        torch.testing.assert_close(products.diagonal(distance), products[0, distance].expand(16 - distance))
    pair = torch.zeros(1, 16, 1, 16)
    pair[..., 0] = 1.0  # the pair of channels 0 and 8 turns by one radian a token
    at_one = trainer.rotate(pair, model.rotary)[0, 1, 0]
    torch.testing.assert_close(at_one[[0, 8]], torch.tensor([np.cos(1.0), -np.sin(1.0)], dtype=torch.float32))


def test_logits_stay_within_the_cap_and_the_first_loss_is_a_guess(load_trainer, facts):
    trainer = load_trainer()
    model = random_model(trainer, facts)
    with torch.no_grad():
        model.unembedding.weight.mul_(1000.0)
    assert model(tokens_of(2, 16)).abs().max() <= trainer.SOFTCAP
    fresh = trainer.build(facts, trainer.choose(trainer.Machine(device="cpu")))
    assert fresh.loss(tokens_of(4, 17)).item() == pytest.approx(np.log(facts.vocabulary), abs=0.01)


def test_more_tokens_than_the_sequence_length_are_refused(load_trainer, facts):
    trainer = load_trainer()
    model = trainer.build(facts, trainer.choose(trainer.Machine(device="cpu")))
    assert model(tokens_of(1, 5)).shape == (1, 5, facts.vocabulary)
    with pytest.raises(ValueError, match="at most SEQUENCE_LENGTH = 16"):
        model(tokens_of(1, 17))


def test_initial_weights_follow_from_name_and_seed_alone(load_trainer):
    trainer = load_trainer()
    shapes = [("embedding", (8, 4)), ("blocks.0.up.weight", (16, 4)), ("blocks.1.up.weight", (16, 4))]
    drawn = {name: trainer.initial_weight(name, shape, seed=1) for name, shape in shapes}
    again = {name: trainer.initial_weight(name, shape, seed=1) for name, shape in reversed(shapes)}
    for name, value in drawn.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, again[name])
        assert not np.array_equal(value, trainer.initial_weight(name, value.shape, seed=2))
    assert not np.array_equal(drawn["blocks.0.up.weight"], drawn["blocks.1.up.weight"])
    assert np.abs(drawn["blocks.0.up.weight"]).max() <= np.sqrt(3 / 4)
    large = trainer.initial_weight("blocks.0.up.weight", (512, 128), seed=1)
    assert large.var() * 128 == pytest.approx(1.0, rel=0.02)
    # What one seed draws is part of the record of every experiment, and the same on every backend.
    np.testing.assert_allclose(drawn["embedding"][0], trainer.initial_weight("embedding", (8, 4), 1)[0])


def test_fifty_million_initial_weights_take_about_a_second(h100):
    preset, trainer = h100
    with torch.device("meta"):
        shapes = [(name, tuple(value.shape)) for name, value in trainer.GPT(preset.vocabulary).state_dict().items()]
    start = time.process_time()
    weights = [trainer.initial_weight(name, shape, seed=1) for name, shape in shapes]
    assert sum(value.size for value in weights) == 50_332_176
    assert time.process_time() - start < 5.0  # 0.4 s where it was measured; this is a guard against a slow way


def test_weights_alone_bring_the_trained_model_back(load_trainer, facts):
    trainer = load_trainer()
    model = trainer.build(facts, trainer.choose(trainer.Machine(device="cpu")))
    stepper = trainer.Stepper(model, trainer.choose(trainer.Machine(device="cpu")), 4)
    for seed in range(4):
        stepper.step(tokens_of(8, 17, seed=seed).numpy(), progress=0.1)
    weights = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    assert all(value.dtype == np.float32 for value in weights.values())
    logits = trainer.restore(weights, dataclasses.replace(facts, seed=99))
    tokens = tokens_of(4, 16, seed=9)
    restored = logits(tokens)
    assert restored.is_inference()
    torch.testing.assert_close(restored, model(tokens), rtol=0, atol=0)


def test_restore_names_a_weight_that_is_missing_or_misshapen(load_trainer, facts):
    trainer = load_trainer()
    model = trainer.build(facts, trainer.choose(trainer.Machine(device="cpu")))
    weights = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    without = {name: value for name, value in weights.items() if name != "x0_lambdas"}
    with pytest.raises(RuntimeError, match="x0_lambdas"):
        trainer.restore(without, facts)
    with pytest.raises(RuntimeError, match="embedding"):
        trainer.restore({**weights, "embedding": weights["embedding"][:, :-1]}, facts)
