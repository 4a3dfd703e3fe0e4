"""The peak that a trial's MFU is a share of: that of the device it ran on, or none."""

from __future__ import annotations

from collections.abc import Mapping

import presets
from core.records import Choice, DeviceName, Preset
from core.system import hardware
from presets import devices


def peak_flops(preset: Preset, device: str, device_name: str, choices: Mapping[str, Choice]) -> float | None:
    """Dense peak in FLOP/s, None where it is not known.

    `device` is the backend's own name, resolved; `device_name` the driver's; `choices` what the trainer runs with. The
    preset's peak counts on the preset's kind of device alone. Where it is that of a device in devices.toml, the one
    here counts by its own name, in the dtype that was chosen. A CPU's is a measured matrix product.
    """
    kind, wanted = DeviceName.parse(device).kind, DeviceName.parse(preset.device).kind
    if kind == "cpu" and (wanted != "cpu" or preset.peak_tflops is None):
        return hardware.matrix_flops()
    if preset.peak_tflops is None or wanted not in (kind, "auto"):
        return None
    tflops: float | None = preset.peak_tflops
    if kind != "cpu" and (facts := _source_device(preset)) is not None:
        here = devices.matching(device_name)
        dtype = choices.get("dtype", Choice(facts.dtype)).value
        tflops = here.tflops.get(dtype) if here is not None else None
    return None if tflops is None else tflops * 1e12


def _source_device(preset: Preset) -> devices.Device | None:
    """The device that `preset.peak_tflops` was copied from; None if the user set it."""
    key = presets.origin(preset.name).device if preset.name in presets.names() else ""
    facts = devices.named(key) if key else None
    return facts if facts is not None and preset.peak_tflops in facts.tflops.values() else None
