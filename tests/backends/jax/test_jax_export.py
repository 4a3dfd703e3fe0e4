"""The whole train step as the program of another device, at the shapes of its presets: nothing is compiled or held."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import presets
from core.records import Constant

jax = pytest.importorskip("jax", reason="JAX is not installed: uv pip install 'autoresearch[jax]'")

CUDNN = "jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version"
FORWARD, BACKWARD = "__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward"
# With windows, whatever the presets of TPUs have.
TPU: dict[str, Constant] = {
    "DEPTH": 8,
    "ASPECT_RATIO": 64,
    "HEAD_DIM": 128,
    "WINDOW_PATTERN": "SSSL",
    "SEQUENCE_LENGTH": 1024,
    "TOTAL_BATCH_SIZE": 131072,
    "DEVICE_BATCH_SIZE": 16,
}


def shapes_of_tpus() -> list[Any]:
    """Vocabulary and constants of every TPU's preset, and of one with windows."""
    loaded = {name: presets.load(name) for name in presets.names()}
    tpus = {name: preset for name, preset in loaded.items() if (preset.backend, preset.device) == ("jax", "tpu")}
    shapes = [pytest.param(of.vocabulary, of.trainer_constants(), id=name) for name, of in tpus.items()]
    return [*shapes, pytest.param(8192, TPU, id="windows")]


@dataclass(frozen=True)
class Program:
    """A lowered step and what it was lowered from."""

    text: str  # StableHLO
    exported: Any
    weights: dict[str, Any]
    state: list[Any]

    def products(self) -> Counter[tuple[str, str]]:
        """Operands of the matrix products, each as in `128x2048x512xbf16`."""
        operands = r"dot_general.*: \(tensor<([^>]*)>, tensor<([^>]*)>\) -> "
        return Counter(re.findall(operands, self.text))

    def calls(self) -> Counter[str]:
        """Targets of the custom calls."""
        return Counter(re.findall(r"custom_call @([\w$]+)\(", self.text))

    def splash_calls(self, kernel: str) -> list[int]:
        """How often each function is called that holds a Mosaic kernel of this name, rarest first."""
        functions = re.split(r"func\.func (?:public|private) @", self.text)[1:]
        holders = [text.partition("(")[0] for text in functions if f'kernel_name = "{kernel}' in text]
        return sorted(self.text.count(f"call @{name}(") for name in holders)


def program(trainer: Any, vocabulary: int, platform: str, choices: Any) -> Program:
    """The step that a Stepper with these choices runs, lowered for the platform from shapes alone."""
    from flax import nnx

    abstract = nnx.eval_shape(lambda: trainer.GPT(vocabulary, choices.kernel, choices.dtype))
    with_weights, weights = trainer.split(abstract)
    rates = trainer.rates_at(abstract.width, 0, 0.0)
    state = jax.eval_shape(trainer.optimizer(rates, weights).init, weights)
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves((weights, state)))
    rows, slices = trainer.batch_shape(trainer.TOTAL_BATCH_SIZE, trainer.SEQUENCE_LENGTH, trainer.DEVICE_BATCH_SIZE)
    tokens = jax.ShapeDtypeStruct((slices, rows // slices, trainer.SEQUENCE_LENGTH + 1), np.int32)
    # cuDNN's are the calls whose programs JAX does not promise to read later: this one is read now.
    unkept = [jax.export.DisabledSafetyCheck.custom_call(name) for name in (FORWARD, BACKWARD)]
    export = jax.export.export(trainer.runner(with_weights, choices), platforms=[platform], disabled_checks=unkept)
    exported = export(weights, state, tokens, rates)
    return Program(exported.mlir_module(), exported, weights, jax.tree.leaves(state))


def check_step(found: Program, platform: str) -> None:
    """What holds of a step for any device and kernel."""
    assert found.exported.platforms == (platform,)
    weights, _, loss = jax.tree.unflatten(found.exported.out_tree, found.exported.out_avals)
    assert {name: (value.shape, value.dtype) for name, value in weights.items()} == {
        name: (value.shape, np.float32) for name, value in found.weights.items()
    }
    assert (loss.shape, loss.dtype) == ((), np.float32)
    # The buffers of every weight and of the optimizer's whole state become those of the next step.
    assert found.text.count("tf.aliasing_output") == len(found.weights) + len(found.state)
    assert sum(found.products().values()) > 100


def in_float32(found: Program) -> set[tuple[str, str]]:
    """Products of two float32 operands."""
    return {pair for pair in found.products() if all(operand.endswith("xf32") for operand in pair)}


def short_and_full(trainer: Any) -> tuple[int, int]:
    """Layers with a window and layers without."""
    found = trainer.windows(trainer.WINDOW_PATTERN, trainer.DEPTH, trainer.SEQUENCE_LENGTH)
    full = found.count(None)
    return len(found) - full, full


@pytest.fixture
def h100(load_trainer):
    preset = presets.load("h100")
    trainer = load_trainer(full=True, **preset.trainer_constants())
    assert short_and_full(trainer) == (6, 2)
    return preset.vocabulary, trainer, trainer.Machine(device="cuda", capability=(9, 0))


def test_a_step_of_the_h100_lowers_with_xlas_attention(h100):
    vocabulary, trainer, machine = h100
    choices = trainer.choose(machine, failed="no cuDNN here")
    assert choices.kernel == "xla"
    found = program(trainer, vocabulary, "cuda", choices)
    check_step(found, "cuda")
    assert not found.calls(), "what XLA compiles by itself calls nothing from outside"
    assert not in_float32(found)
    assert found.products()["128x2048x512xbf16", "512x8192xbf16"] == 1, "the unembedding, of one slice of 128 rows"
    # Of every layer with a window, whose keys are no older than so: `row <= key + window`.
    assert len(re.findall(r"compare +LE,.*: \(tensor<2048x2048xi32>", found.text)) == 6


def test_a_step_of_the_h100_lowers_with_cudnns_attention(h100, monkeypatch):
    """JAX asks the installed cuDNN for its version and for nothing else while it lowers."""
    vocabulary, trainer, machine = h100
    monkeypatch.setattr(CUDNN, lambda: 91000)
    choices = trainer.choose(machine)
    assert choices.kernel == "cudnn"
    found = program(trainer, vocabulary, "cuda", choices)
    check_step(found, "cuda")
    assert found.calls() == {FORWARD: 8, BACKWARD: 8}
    assert not in_float32(found)
    # cuDNN counts the query's own key: 1024 before it and itself. 0 is no window.
    spans = re.findall(r"sliding_window_length\W+22: (\d+)", found.text)
    assert Counter(spans) == {"1025": 12, "0": 4}


@pytest.mark.parametrize(("vocabulary", "constants"), shapes_of_tpus())
def test_a_step_of_a_tpu_lowers_with_splash_attention(load_trainer, vocabulary, constants):
    trainer = load_trainer(full=True, **constants)
    choices = trainer.choose(trainer.Machine(device="tpu", splash=True))
    assert (choices.kernel, jax.numpy.dtype(choices.dtype).name) == ("splash", "bfloat16"), choices.kernel_reason
    found = program(trainer, vocabulary, "tpu", choices)
    check_step(found, "tpu")
    assert set(found.calls()) == {"tpu_custom_call"}
    layers = sorted(count for count in short_and_full(trainer) if count)
    for kernel in ("splash_mha_fwd", "splash_mha_dkv", "splash_mha_dq"):
        assert found.splash_calls(kernel) == layers, f"{kernel}: one for layers with a window, one for those without"
    # The kernel's own sums over heads are the only products that are not of bfloat16.
    sums = rf"\d+x\d+x{trainer.SEQUENCE_LENGTH}x{trainer.HEAD_DIM}xf32"
    assert all(re.fullmatch(sums, operand) for pair in in_float32(found) for operand in pair)


def test_a_tpu_without_splash_gets_a_step_of_xla_alone(load_trainer):
    trainer = load_trainer(full=True, **TPU)
    choices = trainer.choose(trainer.Machine(device="tpu"))
    found = program(trainer, 8192, "tpu", choices)
    check_step(found, "tpu")
    assert (choices.kernel, found.calls(), in_float32(found)) == ("xla", {}, set())


def test_float32_of_an_older_gpu_is_seen(h100):
    """So that what is asserted of bfloat16 above can fail."""
    vocabulary, trainer, _ = h100
    found = program(trainer, vocabulary, "cuda", trainer.choose(trainer.Machine(device="cuda", capability=(7, 5))))
    check_step(found, "cuda")
    assert in_float32(found) == set(found.products())
