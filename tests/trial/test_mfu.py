"""What MFU is held against: the peak of the device that a trial ran on, never another's."""

from __future__ import annotations

import dataclasses

import pytest

import presets
from core.records import Choice, Preset
from core.system import hardware
from core.trial.mfu import peak_flops

MATRIX = 3e11  # FLOP/s
BF16, FP32 = {"dtype": Choice.parse("bfloat16 (native)")}, {"dtype": Choice.parse("float32 (no other)")}
H100, A100, M4_MAX = "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB", "Apple M4 Max"


@pytest.fixture(autouse=True)
def _matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "matrix_flops", lambda: MATRIX)


@pytest.mark.parametrize(
    ("name", "device", "device_name", "choices", "peak"),
    [
        ("h100", "cuda:0", H100, BF16, 989.5e12),
        ("h100", "cuda:0", A100, BF16, 312e12),  # the preset of one card on another
        ("h100", "cuda:0", "NVIDIA H100 NVL", BF16, None),  # nobody knows its peak here
        ("h100", "cuda:0", H100, {"dtype": Choice.parse("float8 (an agent's idea)")}, None),
        ("h100", "cpu", "a processor", FP32, MATRIX),
        ("m4-max", "gpu", M4_MAX, BF16, 12.9e12),
        ("m4-max", "cpu", "a processor", FP32, MATRIX),
        ("m4-max", "cuda:0", H100, BF16, None),
        ("macbook", "gpu", M4_MAX, BF16, 12.9e12),  # whose own numbers are an M1's
        ("t4", "cuda:0", "Tesla T4", FP32, 8.1e12),  # JAX has no float16 there
        ("cpu", "cpu", "a processor", FP32, MATRIX),
        ("cpu", "cuda:0", H100, BF16, None),
    ],
)
def test_the_peak_is_of_the_device_here(
    name: str, device: str, device_name: str, choices: dict[str, Choice], peak: float | None
) -> None:
    found = peak_flops(presets.load(name), device, device_name, choices)
    assert found == (None if peak is None else pytest.approx(peak))


@pytest.mark.parametrize(
    ("wanted", "device", "peak"),
    [
        ("cuda:1", "cuda:1", 5e12),
        ("auto", "cuda", 5e12),
        ("auto", "cpu", MATRIX),
        ("cpu", "cpu", 5e12),
        ("mps", "cuda", None),
    ],
)
def test_a_peak_that_somebody_set_counts_where_it_was_meant(wanted: str, device: str, peak: float | None) -> None:
    mine = dataclasses.replace(presets.load("h100"), name="mine", device=wanted, peak_tflops=5.0)
    assert peak_flops(mine, device, A100, BF16) == peak


def test_a_preset_on_another_kind_of_device_leaves_its_peak_behind() -> None:
    def peak(**settings: str) -> float | None:
        return presets.load("h100", settings).peak_tflops

    assert peak() == peak(device="cuda:1") == peak(depth="4") == 989.5
    assert peak(device="cpu") is peak(device="auto") is None
    assert peak(device="cpu", peak_tflops="0.3") == 0.3
    frozen: Preset = presets.override(presets.load("m4-max"), {"device": "cpu"})
    assert frozen.peak_tflops is None
