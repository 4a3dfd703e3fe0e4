"""The rule from a device's facts to a preset, and whether what it gives means something."""

from __future__ import annotations

import dataclasses
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

import backends
import presets
from core.records import UserError
from presets import cost, devices, estimate, scaling

DERIVED = [name for name in presets.names() if not presets.origin(name).exempt]
SIZES = ("vocabulary", "depth", "sequence_length", "total_batch_size", "score_bytes")


@pytest.mark.parametrize("name", ["h100", "cpu"])
def test_the_rule_goes_through_both_presets_that_were_set_by_hand(name: str) -> None:
    by_hand, by_rule = presets.load(name), scaling.scaled(devices.named(name), presets.anchors())
    assert {of: getattr(by_rule, of) for of in SIZES} == {of: getattr(by_hand, of) for of in SIZES}
    assert cost.width(by_rule) == cost.width(by_hand)
    assert (by_rule.backend, by_rule.device, by_rule.corpus) == (by_hand.backend, by_hand.device, by_hand.corpus)
    assert (by_rule.device_batch_size, by_rule.peak_tflops) == (by_hand.device_batch_size, by_hand.peak_tflops)


@pytest.mark.parametrize("name", DERIVED)
def test_every_preset_means_something_on_its_device(name: str) -> None:
    preset, device = presets.load(name), devices.named(presets.origin(name).device)
    found = estimate.estimate(preset, device)
    assert found.warnings() == []
    share = preset.budget_seconds / 300
    assert found.steps >= 300 * share
    assert 2 * share <= found.tokens_per_parameter <= 40
    assert found.memory_share is not None and found.memory_share < 0.85
    assert found.overhead_share < (0.10 if share == 1 else 0.49)


def test_those_that_are_exempt_say_why() -> None:
    assert {name for name in presets.names() if presets.origin(name).exempt} == {"numpy", "smoke"}


@pytest.mark.parametrize("name", devices.known())
def test_facts_of_a_device_are_whole(name: str) -> None:
    device = devices.named(name)
    assert device.backend in backends.names()
    assert device.peak_tflops is not None and device.peak_tflops > 0 and 0 < device.usable_gb <= device.memory_gb
    assert device.source and device.name
    for part in device.match:
        found = devices.matching(part, device.memory_gb)
        assert found is not None and found.key == name, f"{part!r} means {found and found.key}"


@pytest.mark.parametrize(
    ("reported", "memory_gb", "key"),
    [
        ("NVIDIA H100 80GB HBM3", 80, "h100"),
        ("NVIDIA GeForce RTX 4090", 24, "rtx4090"),
        ("Tesla T4", 15, "t4"),
        ("Apple M4 Max", 64, "m4-max"),
        ("Apple M1", 16, "m1"),
        ("TPU v5 lite", 16, "tpu-v5e"),
    ],
)
def test_a_drivers_name_finds_the_device(reported: str, memory_gb: float, key: str) -> None:
    found = devices.matching(reported, memory_gb)
    assert found is not None and found.key == key


def test_an_unknown_device_is_not_taken_for_a_known_one() -> None:
    for other in ("Imaginary Accelerator 9000", "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA GeForce RTX 3060 Ti"):
        assert devices.matching(other) is None, other
    assert devices.matching("NVIDIA H200 NVL", 141) is None, "slower than the SXM card of that memory"
    facts = devices.like("cuda", "Imaginary Accelerator 9000", 23.0, "torch", "cuda")
    assert not facts.known and facts.peak_tflops is None
    assert (facts.name, facts.memory_gb, facts.kernel) == ("Imaginary Accelerator 9000", 23.0, "sdpa")


@pytest.mark.parametrize("memory_gb", [8, 12, 16, 24, 48])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("kind", ["cuda", "rocm", "apple", "tpu"])
def test_an_unknown_device_of_any_dtype_gets_a_preset_and_no_peak(kind: str, dtype: str, memory_gb: float) -> None:
    """Whatever it is taken to be like: its trainer may choose a dtype that one has no peak for."""
    backend, name = devices.DRIVERS[kind][0]
    assumed = devices.like(kind, "Imaginary 9000", memory_gb, backend, name)
    assert (assumed.kind, assumed.known) == (kind, False)
    seen = dataclasses.replace(assumed, dtype=dtype)
    for measured in (None, scaling.Calibration(flops=3e13)):
        preset = scaling.scaled(seen, presets.anchors(), measured, name="found")
        assert preset.peak_tflops is None
    assert estimate.estimate(preset, seen, flops=3e13).steps >= estimate.LEAST_STEPS


def test_devices_are_told_apart_by_their_makers() -> None:
    """PyTorch calls AMD's GPUs cuda, too."""
    assert {one.key for one in devices.known_of("rocm")} == {"mi300x", "rx7900xtx"}
    assert {"t4", "h100", "gb10"} <= {one.key for one in devices.known_of("cuda")}
    assert not {one.key for one in devices.known_of("cuda")} & {"mi300x", "rx7900xtx"}


@pytest.mark.parametrize(
    ("kind", "reported", "memory_gb", "backend", "device", "kernel", "dtype", "peak"),
    [
        ("cuda", "NVIDIA H100 80GB HBM3", 80, "torch", "cuda", "flash-attn-3", "bfloat16", 989.5),
        ("cuda", "NVIDIA H100 80GB HBM3", 80, "jax", "cuda", "cudnn", "bfloat16", 989.5),
        ("cuda", "Tesla T4", 16, "jax", "cuda", "cudnn", "float32", 8.1),
        ("rocm", "AMD Instinct MI300X", 192, "jax", "rocm", "xla", "bfloat16", 1307.4),
        ("apple", "Apple M4 Max", 64, "torch", "mps", "sdpa", "float32", 12.9),
        ("apple", "Apple M5", 16, "mlx", "gpu", "mx.fast", "bfloat16", 16.6),
        ("apple", "Apple M5", 16, "torch", "mps", "sdpa", "float32", 4.1),
        ("tpu", "TPU v4", 32, "jax", "tpu", "splash", "bfloat16", None),
    ],
)
def test_another_backend_has_a_kernel_and_a_dtype_of_its_own(
    kind: str, reported: str, memory_gb: float, backend: str, device: str, kernel: str, dtype: str, peak: float | None
) -> None:
    facts = devices.like(kind, reported, memory_gb, backend, device)
    assert (facts.kernel, facts.dtype, facts.peak_tflops) == (kernel, dtype, peak)
    if kernel == "splash":
        assert "HEAD_DIM" not in scaling.scaled(facts, presets.anchors()).constants, "it takes heads of 128 alone"


def test_the_m5_is_derived_as_a_faster_m4() -> None:
    """Its peak is four times an M4's, but a small model is further from it."""
    old, new = devices.named("m4"), devices.named("m5")
    assert 2 <= estimate.sustained_flops(new) / estimate.sustained_flops(old) <= 3
    assert presets.load("m4").depth <= presets.load("m5").depth <= presets.load("m4-max").depth


@given(
    speed=st.floats(1e10, 3e15),
    memory_gb=st.floats(4, 300),
    kernel=st.sampled_from(sorted(estimate.UTILIZATION)),
    factor=st.floats(1, 3),
)
def test_any_measured_device_gets_a_preset_that_can_run(
    speed: float, memory_gb: float, kernel: str, factor: float
) -> None:
    device = dataclasses.replace(devices.named("h100"), memory_gb=memory_gb, kernel=kernel)
    preset = scaling.scaled(
        device, presets.anchors(), scaling.Calibration(flops=speed, memory_factor=factor), name="found"
    )
    assert presets.parse(presets.dump(preset)) == preset  # every value is in range
    assert preset.total_batch_size % preset.sequence_length == 0
    assert cost.rows(preset) % preset.device_batch_size == 0
    found = estimate.estimate(preset, device, flops=speed)
    assert found.steps >= estimate.LEAST_STEPS
    if preset.device_batch_size > 1:
        assert factor * found.memory_gb <= scaling.MEMORY_AIM * device.usable_gb


@given(slow=st.floats(1e11, 1e15), times=st.floats(1, 1000))
def test_a_faster_device_gets_no_smaller_sizes(slow: float, times: float) -> None:
    device, anchors = devices.named("h100"), presets.anchors()
    small, large = (
        scaling.scaled(device, anchors, scaling.Calibration(flops=flops)) for flops in (slow, min(slow * times, 1e15))
    )
    for of in ("vocabulary", "sequence_length", "score_bytes"):
        assert getattr(small, of) <= getattr(large, of)
    assert cost.flops_per_token(small) <= 1.3 * cost.flops_per_token(large)  # sizes are rounded to whole heads


def test_an_estimate_says_what_is_wrong_and_what_mends_it() -> None:
    device = devices.named("h100")
    heavy = dataclasses.replace(presets.load("h100"), depth=24, total_batch_size=2**22, device_batch_size=512)
    got = " ".join(estimate.estimate(heavy, device).warnings())
    for part in ("fewer than 300", "lower total_batch_size", "tokens a parameter, under 2", "lower device_batch_size"):
        assert part in got
    short = dataclasses.replace(presets.load("h100"), budget_seconds=20.0)
    assert "start-up and scoring" in " ".join(estimate.estimate(short, device).warnings())
    tiny = dataclasses.replace(presets.load("h100"), depth=2)
    assert "over 40: raise depth" in " ".join(estimate.estimate(tiny, device).warnings())


def test_a_name_that_is_no_device_is_told() -> None:
    with pytest.raises(UserError, match=r"no device 'abacus'.*h100"):
        devices.named("abacus")


def test_the_file_of_devices_is_no_preset() -> None:
    assert "devices" not in presets.names()
    tables = tomllib.loads(devices.FILE.read_text(encoding="utf-8"))
    assert list(devices.known()) == list(tables)
    assert presets.names()[: len(tables)] == list(tables)
