"""From a device's facts to a preset: a power law through the two presets whose numbers were set by hand.

These are the H100's (upstream's numbers) and the CPU's. Every size x is h100.x * c ** e, where c is the device's
sustained FLOP/s over the H100's, and e is such that the CPU's c gives the CPU's x. Memory then sets the rows that the
device takes at once.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from core.records import Constant, Preset
from presets import cost, devices, estimate
from presets.devices import Device

ASPECT_RATIOS = (32, 48, 64, 96)  # the trainers' own range
CLOSE = 0.1  # by so much a width's logarithm may be further off, if heads of 128 then fit
LONG = 1024  # tokens of context from which a window of half of them saves something
MEMORY_AIM = 0.70  # of the usable memory: below the limit by the error of an estimate
CPU_TOKENS = 2048  # at once on a CPU: more take more memory and are no faster
# Repeating text up to four times is nearly as good as new text (Muennighoff et al. 2023, arXiv:2305.16264).
APIDOCS_TOKENS = 4 * 4_500_000
# Small models learn more from simple text (Eldan and Li 2023, arXiv:2305.07759).
TINYSTORIES_TOKENS = 40_000_000
STARTUP_SECONDS, SILENCE_SECONDS = 300.0, 120.0
LEAST_DEPTH = 2


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What was measured on a device; it replaces the estimates."""

    flops: float  # FLOP/s that training reached
    memory_factor: float = 1.0  # peak memory over its estimate


@dataclass(frozen=True)
class Anchors:
    """The two presets that were set by hand."""

    h100: Preset
    cpu: Preset

    def between(self, high: float, low: float, flops: float) -> float:
        """The size for `flops` FLOP/s, by the power law through the H100's size `high` and the CPU's `low`."""
        top, bottom = (estimate.sustained_flops(devices.named(key)) for key in ("h100", "cpu"))
        exponent = math.log(high / low) / math.log(top / bottom)
        return float(high * (flops / top) ** exponent)


def scaled(device: Device, anchors: Anchors, measured: Calibration | None = None, *, name: str = "") -> Preset:
    """The preset for a device, by its facts or by what was measured there. Its estimate may still have warnings."""
    measured = measured or Calibration(flops=estimate.sustained_flops(device))
    flops = measured.flops
    high, low = anchors.h100, anchors.cpu

    def size(of: str) -> float:
        return anchors.between(getattr(high, of), getattr(low, of), flops)

    # Beyond an H100 the model grows; context, vocabulary and what is scored stay, so that scores can be compared.
    length = min(high.sequence_length, _power_of_two(size("sequence_length")))
    depth = max(LEAST_DEPTH, round(size("depth")))
    wide = anchors.between(cost.width(high), cost.width(low), flops)
    preset = Preset(
        name=name or device.key,
        backend=device.backend,
        device=device.device,
        corpus=low.corpus,
        vocabulary=min(high.vocabulary, max(256, _power_of_two(size("vocabulary")))),
        depth=depth,
        sequence_length=length,
        total_batch_size=max(length, _power_of_two(size("total_batch_size"))),
        device_batch_size=1,
        budget_seconds=high.budget_seconds,
        startup_seconds=low.startup_seconds if device.device == "cpu" else STARTUP_SECONDS,
        silence_seconds=low.silence_seconds if device.device == "cpu" else SILENCE_SECONDS,
        score_bytes=min(high.score_bytes, _four_times_ten(size("score_bytes"))),
        # CPUs differ too much: their MFU is relative to a measured matrix product.
        peak_tflops=None if device.device == "cpu" else device.peak_tflops,
        constants=_constants(device, depth, wide, length),
    )
    preset = _fitted_to_budget(preset, device, flops, wide)
    tokens = flops / cost.flops_per_token(preset) * preset.budget_seconds
    preset = dataclasses.replace(preset, corpus=_corpus(tokens, low.corpus, high.corpus))
    return _with_rows(preset, device, measured.memory_factor)


def _fitted_to_budget(preset: Preset, device: Device, flops: float, wide: float) -> Preset:
    """The preset with smaller steps, another depth or less scored text, so that its estimate warns of none of these."""

    def deeper(layers: int) -> Preset:
        depth = preset.depth + layers
        constants = _constants(device, depth, wide, preset.sequence_length)
        return dataclasses.replace(preset, depth=depth, constants=constants)

    while True:
        found = estimate.estimate(preset, device, flops=flops)
        if found.steps < estimate.LEAST_STEPS and preset.total_batch_size >= 2 * preset.sequence_length:
            preset = dataclasses.replace(preset, total_batch_size=preset.total_batch_size // 2)
        elif found.tokens_per_parameter < estimate.TOKENS_PER_PARAMETER[0] and preset.depth > LEAST_DEPTH:
            preset = deeper(-1)
        elif found.tokens_per_parameter > estimate.TOKENS_PER_PARAMETER[1]:
            preset = deeper(+1)
        elif found.overhead_share >= estimate.MOST_OVERHEAD and preset.score_bytes >= 40_000:
            preset = dataclasses.replace(preset, score_bytes=preset.score_bytes // 10)
        else:
            return preset


def _constants(device: Device, depth: int, wide: float, length: int) -> dict[str, Constant]:
    """The trainer's constants that differ from the H100's. Their width is close to `wide`, in heads of 128 or of 64."""
    # Splash takes no heads but those of 128, and all other kernels are quickest with them.
    heads = (cost.HEAD_DIM,) if device.kernel == "splash" else (cost.HEAD_DIM, cost.HEAD_DIM // 2)

    def off(shape: tuple[int, int]) -> float:
        head, aspect = shape
        return abs(math.log(math.ceil(depth * aspect / head) * head / wide))

    shapes = [(head, aspect) for head in heads for aspect in ASPECT_RATIOS]
    closest = min(map(off, shapes))
    # Of those about as close, wide heads before narrow ones, then the aspect ratio that needs the least rounding.
    close = [shape for shape in shapes if off(shape) <= closest + CLOSE]
    head, aspect = min(close, key=lambda shape: (-shape[0], abs(shape[1] - wide / depth)))
    constants: dict[str, Constant] = {}
    if aspect != cost.ASPECT_RATIO:
        constants["ASPECT_RATIO"] = aspect
    if head != cost.HEAD_DIM:
        constants["HEAD_DIM"] = head
    if length < LONG or device.kernel not in cost.FUSED_KERNELS:
        constants["WINDOW_PATTERN"] = "L"
    return constants


def _with_rows(preset: Preset, device: Device, factor: float) -> Preset:
    """The preset with the largest power of two of rows at once that fits the device's memory.

    `factor`: the memory that is needed, over its estimate.
    """
    compiled = estimate.is_compiled(device)
    most = cost.rows(preset)
    if device.device == "cpu":
        most = min(most, max(1, CPU_TOKENS // preset.sequence_length))
    rows = 1
    while 2 * rows <= most:
        wider = dataclasses.replace(preset, device_batch_size=2 * rows)
        needed = factor * cost.memory_gb(wider, device.kernel, device.dtype, compiled=compiled)
        if needed > MEMORY_AIM * device.usable_gb:
            break
        rows *= 2
    return dataclasses.replace(preset, device_batch_size=rows)


def _corpus(tokens: float, small: str, large: str) -> str:
    if tokens <= APIDOCS_TOKENS:
        return small
    return "tinystories" if tokens <= TINYSTORIES_TOKENS else large


def _power_of_two(value: float) -> int:
    return 1 << max(0, round(math.log2(value)))


def _four_times_ten(value: float) -> int:
    """The largest 4 * 10 ** n that is at most `value`: with so few sizes, many devices share a yardstick."""
    return int(4 * 10 ** math.floor(math.log10(value / 4) + 1e-9))
