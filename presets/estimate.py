"""Steps, tokens, memory and overhead of a preset's trial, estimated before it or measured after it, and warnings."""

from __future__ import annotations

from dataclasses import dataclass

from core.records import Preset, Trial
from presets import cost
from presets.devices import Device

# What a trial of FULL_SECONDS or more should hold. A shorter one should hold its share of the steps and tokens: what
# it ranks is how quickly a model begins to learn.
FULL_SECONDS = 300.0
LEAST_STEPS = 300
TOKENS_PER_PARAMETER = (2.0, 40.0)
MOST_MEMORY = 0.85
# Shares of the wall time, at FULL_SECONDS and at the shortest budget, which has the same start-up; in between, linear.
MOST_OVERHEAD, MOST_OVERHEAD_SHORT = 0.10, 0.50

# Share of the dense peak that training reaches. Upstream's H100 with FlashAttention-3 and this project's CPU trainer
# were measured; the others are assumed to be lower, as their kernels are less fused.
UTILIZATION = {
    "flash-attn-3": 0.398,
    "flex": 0.35,
    "cudnn": 0.35,
    "splash": 0.35,
    "mx.fast": 0.3,
    "sdpa": 0.3,
    "xla": 0.2,
}
CPU_UTILIZATION = 0.5
# Seconds until the first real batch, warm: 3 s was measured on a CPU; upstream's H100 spent 26 s beside training.
STARTUP_SECONDS = {"cpu": 3.0, "cuda": 20.0, "tpu": 20.0, "gpu": 8.0}
# Scoring is a forward pass, a third of a training pass, but less fused: counted as a whole one.
SCORING_PASSES = 1.0
BYTES_PER_TOKEN = 3.4  # of English at a vocabulary of 2048; larger ones have more, so scoring is not underestimated


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a trial of the preset would reach within its budget, or did reach if `measured`."""

    tokens_per_second: float
    steps: float
    tokens_per_parameter: float
    memory_gb: float
    memory_share: float | None  # None if the device's memory is not known
    overhead_share: float  # start-up and scoring, of the wall time
    budget_seconds: float
    measured: bool = False

    def warnings(self) -> list[str]:
        """The reasons why the budget is a poor one, each with its number and what to change."""
        share = min(1.0, self.budget_seconds / FULL_SECONDS)
        steps, (least, most) = LEAST_STEPS * share, TOKENS_PER_PARAMETER
        least *= share
        overhead = MOST_OVERHEAD_SHORT + (MOST_OVERHEAD - MOST_OVERHEAD_SHORT) * share
        of = "" if share == 1 else f" for {self.budget_seconds:g} s"
        found = []
        if self.steps < steps:
            found.append(f"{self.steps:.0f} steps, fewer than {steps:.0f}{of}: lower total_batch_size or depth")
        if self.tokens_per_parameter < least:
            found.append(
                f"{self.tokens_per_parameter:.2g} tokens a parameter, under {least:.2g}{of}: lower depth or vocabulary"
            )
        if self.tokens_per_parameter > most:
            found.append(f"{self.tokens_per_parameter:.1f} tokens a parameter, over {most:g}: raise depth")
        if self.memory_share is not None and self.memory_share >= MOST_MEMORY:
            found.append(f"{self.memory_share:.0%} of the memory, not under {MOST_MEMORY:.0%}: lower device_batch_size")
        if self.overhead_share >= overhead:
            found.append(
                f"start-up and scoring are {self.overhead_share:.0%} of the wall time, not under {overhead:.0%}{of}: "
                "lower score_bytes or raise budget_seconds"
            )
        return found


def sustained_flops(device: Device) -> float:
    """FLOP/s that training is assumed to reach on the device."""
    share = CPU_UTILIZATION if device.device == "cpu" else device.utilization or UTILIZATION[device.kernel]
    return device.likely_tflops * 1e12 * share


def is_compiled(device: Device) -> bool:
    """Whether the trainer is compiled there, so that fused kernels keep fewer activations."""
    return device.backend == "torch" and device.device == "cuda"


def estimate(preset: Preset, device: Device, *, flops: float | None = None) -> Estimate:
    """The estimate of a trial of the preset on the device. `flops`: the FLOP/s that were measured there, if any."""
    speed = (flops or sustained_flops(device)) / cost.flops_per_token(preset)
    tokens = speed * preset.budget_seconds
    memory = cost.memory_gb(preset, device.kernel, device.dtype, compiled=is_compiled(device))
    scoring = preset.score_bytes / BYTES_PER_TOKEN / speed * SCORING_PASSES
    overhead = STARTUP_SECONDS.get(device.device, 20.0) + scoring
    return Estimate(
        tokens_per_second=speed,
        steps=tokens / (cost.rows(preset) * preset.sequence_length),
        tokens_per_parameter=tokens / cost.parameters(preset),
        memory_gb=memory,
        memory_share=memory / device.usable_gb,
        overhead_share=overhead / (overhead + preset.budget_seconds),
        budget_seconds=preset.budget_seconds,
    )


def of_trial(trial: Trial, memory_gb: float | None) -> Estimate | None:
    """What a finished trial reached; None if it failed or its budget was in steps. `memory_gb`: what it could use."""
    if trial.val_bpb is None or trial.budget_seconds is None or not trial.parameters:
        return None
    peak = (trial.peak_memory_mb or 0.0) / 1024
    return Estimate(
        tokens_per_second=trial.tokens_per_second or 0.0,
        steps=float(trial.steps),
        tokens_per_parameter=trial.tokens / trial.parameters,
        memory_gb=peak,
        memory_share=peak / memory_gb if memory_gb else None,
        overhead_share=(trial.wall_seconds - trial.train_seconds) / trial.wall_seconds,
        budget_seconds=trial.budget_seconds,
        measured=True,
    )
