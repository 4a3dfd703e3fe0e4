"""The supervisor's side of training: serves warm-up and batches, holds the clock, records losses, takes the weights."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from core.data.packing import Packer
from core.data.shards import TokenShards
from core.events import OnProgress, Progress
from core.records import WEIGHTS, Budget, Choice, Facts, Preset, UserError, to_json
from core.system.text import one_line
from core.trial.channel import Message
from core.trial.child.client import Batch
from core.trial.failures import Retry
from core.trial.process import Process, TrialFailed, unexpected_as_crash
from core.trial.shared_arrays import SharedArray
from core.trial.stop_rule import StopDetector, StopRule
from core.trial.training_state import TrainingState

WARMUP_BATCHES = 16
MAX_BATCH_BYTES = 2**30
OVERRUN_FRACTION, OVERRUN_SECONDS = 0.02, 1.0
# Fewer steps than these say nothing about a trainer, and scoring them can take longer than they did.
LEAST_STEPS = 5
CHANCE_SECONDS = 1.0  # a busy machine can hold up any step for so long
# A uniform guess costs ln(vocabulary) nats; four times that is no model any more.
DIVERGED = 4.0
MAX_CHOICES, MAX_CHOICE_LENGTH = 32, 200
PROGRESS_SECONDS = 0.25


@dataclass
class Training:
    """Serves one trainer until its weights have arrived or it has failed. `state` is filled on the way."""

    process: Process
    preset: Preset
    budget: Budget
    facts: Facts
    shards: TokenShards
    before_clock: Callable[[], None]
    on_progress: OnProgress
    retry: Retry | None
    stop: StopRule | None = None
    state: TrainingState = field(default_factory=TrainingState)

    def __post_init__(self) -> None:
        self._reported = 0.0
        self._last_request = 0.0
        self._startup_deadline = math.inf
        self._warmups = 0
        self._warming: tuple[float, int] | None = None  # when the last warm-up batch was handed out, and its tokens
        # Seconds a token of each warm-up batch that another one followed: the last may be no more than looked at.
        self._warm: list[float] = []
        self._expected = 0.0  # seconds of a step by the warm-up, at most: it may compile then; 0: unknown
        self._random = np.random.default_rng(self.facts.seed)
        self._array: SharedArray | None = None
        self._packing = ThreadPoolExecutor(1, "packing")
        self._packer: Packer | None = None
        self._next: Future[Batch] | None = None
        self._stopping: StopDetector | None = None

    def serve(self, startup_deadline: float) -> Path:
        """Runs the dialogue. Returns the file of weights in the trial's scratch. TrialFailed, with the reason.

        `startup_deadline`: monotonic seconds by which the first real batch must have been asked for.
        """
        self._startup_deadline = startup_deadline
        self._send("facts", facts=to_json(self.facts))
        try:
            while True:
                message = self.process.receive(*self._limits())
                with unexpected_as_crash(f"a message of type {message['type'][:40]!r}"):
                    if (weights := self._answer(message)) is not None:
                        return weights
        finally:
            self._packing.shutdown(wait=True, cancel_futures=True)
            if self._array is not None:
                self._array.close()

    def _answer(self, message: Message) -> Path | None:
        """Answers one message. Returns the file of weights if that was the last one."""
        match message["type"]:
            case "join":
                self._answer_join(message)
            case "warmup":
                self._answer_warmup(message)
            case "batch":
                self._answer_batch(message)
            case "report":
                self._record_loss(message)
            case "describe":
                self._record_choices(message)
            case "finish":
                return self._take_weights(message)
            case "returned":
                raise TrialFailed("main() returned without trial.finish(weights)")
            case other:
                raise TrialFailed(f"broke the protocol: {other[:40]!r} is nothing a trainer says")
        return None

    def _send(self, kind: str, **content: Any) -> None:
        """Answers the trainer, which has until the phase's deadline to read."""
        deadline, silence, _ = self._limits()
        self.process.send(kind, min(deadline, time.monotonic() + silence), **content)

    def _limits(self) -> tuple[float, float, TrialFailed]:
        """Until when the next message must come, how long the silence may be, and the failure at the deadline."""
        state, silence = self.state, self.preset.silence_seconds
        if state.started is None:
            allowance = f"no batch was asked for within the start-up allowance of {self.preset.startup_seconds:g} s"
            return self._startup_deadline, math.inf, TrialFailed(allowance)
        if self.budget.seconds is None:
            return math.inf, silence, TrialFailed("")
        if self._is_slow() and (len(state.durations) == 1 or self._expected > self._slow):
            reason = f"a step was still running after {self._slow:.1f} s"
            return self._last_request + self._slow, silence, self._too_few(reason, self._slow)
        # Past this point the trial is invalid anyway; waiting longer would only cost the night.
        end = state.started + 1.5 * self.budget.seconds + max(10.0, 2 * OVERRUN_SECONDS)
        reason = f"still running {end - state.started:.0f} s into a budget of {self.budget.seconds:g} s"
        return end, silence, TrialFailed(reason)

    @property
    def _slow(self) -> float:
        """Seconds: a budget of time holds too few steps that take longer."""
        return max((self.budget.seconds or 0.0) / LEAST_STEPS, CHANCE_SECONDS)

    def _is_slow(self) -> bool:
        """Whether no step so far was fast enough for the budget: after two of them that is no accident."""
        durations = self.state.durations
        return self.budget.seconds is not None and len(durations) < 3 and all(one > self._slow for one in durations)

    def _too_few(self, what: str, seconds: float) -> TrialFailed:
        """The failure where a step takes longer than that."""
        assert self.budget.seconds is not None
        held = math.ceil(self.budget.seconds / seconds) - 1
        return TrialFailed(
            f"{what}, so a budget of {self.budget.seconds:g} s holds at most {held}; fewer than {LEAST_STEPS} steps "
            "say nothing: make a step smaller (batch, depth, length), or the budget longer",
            "invalid",
        )

    def _shape(self, message: Message) -> tuple[int, int]:
        rows, length = _integer(message, "rows"), _integer(message, "length")
        if rows < 1 or length < 1 or rows * (length + 1) * 4 > MAX_BATCH_BYTES:
            raise TrialFailed(f"asked for batches of {rows} rows x {length} tokens; at most 1 GiB, at least 1 x 1")
        return rows, length

    def _hand_over(self, kind: str, batch: Batch, progress: float) -> None:
        self._array = SharedArray.fitting(self._array, self.process.scratch, "batch", batch.nbytes)
        self._array.write(batch)
        self._send(kind, array=str(self._array.path), progress=progress)

    def _answer_join(self, message: Message) -> None:
        wanted = max(1, _integer(message, "device_rows"))
        granted = wanted if self.retry is None else min(wanted, self.retry.device_rows)
        self.state.device_rows = granted
        self._send("join", device_rows=granted)

    def _answer_warmup(self, message: Message) -> None:
        rows, length = self._shape(message)
        if self.state.started is not None:
            raise TrialFailed("asked for warm-up after the clock had started", "invalid")
        if self._warming is not None:
            begun, tokens = self._warming
            self._warm.append((time.monotonic() - begun) / tokens)
        if self._warmups == WARMUP_BATCHES:
            self._send("warmup", end=True)
            return
        self._warmups += 1
        batch = self._random.integers(0, self.facts.vocabulary, (rows, length + 1), dtype=np.int32)
        self._hand_over("warmup", batch, 0.0)
        self._warming = (time.monotonic(), rows * length)
        self._report("startup", self._warmups / WARMUP_BATCHES)

    def _answer_batch(self, message: Message) -> None:
        state = self.state
        rows, length = self._shape(message)
        if self._packer is None:
            self._packer = Packer(self.shards, rows, length, self.facts.seed)
            state.rows, state.length = rows, length
            if self.retry is not None and self.retry.shape not in {None, (rows, length)}:
                raise TrialFailed(f"{self.retry.note}, and asked for other batches then: {rows} x {length}")
            self._expected = min(self._warm, default=0.0) * rows * length
            batch = self._packer.next_batch()
            if self.stop is not None:
                self._stopping = StopDetector(self.stop, (rows, length, self.facts.seed))
            self.before_clock()
            state.started = self._last_request = time.monotonic()
        else:
            if (rows, length) != (state.rows, state.length):
                raise TrialFailed(f"batches are {state.rows} x {state.length} since the first, not {rows} x {length}")
            assert self._next is not None
            now = time.monotonic()
            state.end_step(now - self._last_request)
            self._last_request = now
            spent = self._spent()
            if self._is_slow() and (spent or len(state.durations) == 2 or self._expected > self._slow):
                fastest = min(state.durations)
                raise self._too_few(f"a step took {fastest:.1f} s", fastest)
            if spent:
                self._send("batch", end=True)
                return
            batch = self._next.result()
        progress = self._progress()
        self._hand_over("batch", batch, progress)
        state.step += 1
        self._next = self._packing.submit(self._packer.next_batch)
        self._report("train", progress)

    def _spent(self) -> bool:
        """Whether no further step fits, by the median of the last ones."""
        if self.budget.steps is not None:
            return self.state.step >= self.budget.steps
        assert self.budget.seconds is not None
        return self.state.seconds + statistics.median(self.state.durations) > self.budget.seconds

    def _progress(self) -> float:
        if self.budget.steps is not None:
            return self.state.step / self.budget.steps
        assert self.budget.seconds is not None
        return min(1.0, self.state.seconds / self.budget.seconds)

    def _record_loss(self, message: Message) -> None:
        state = self.state
        loss = _number(message, "loss")
        if state.started is None:
            return
        limit = DIVERGED * math.log(self.facts.vocabulary)
        if not math.isfinite(loss):
            raise TrialFailed(f"the loss is {loss} at step {state.step}")
        if loss > limit:
            raise TrialFailed(f"diverged: the loss is {loss:.4g} at step {state.step} (limit {limit:.4g})")
        state.loss = loss
        seconds, progress = round(state.seconds, 4), round(self._progress(), 6)
        point = {"step": state.step, "seconds": seconds, "progress": progress, "loss": loss}
        if state.curve and state.curve[-1]["step"] == state.step:
            state.curve[-1] = point
        else:
            state.curve.append(point)
            self._stop_if_hopeless(progress, loss)

    def _stop_if_hopeless(self, progress: float, loss: float) -> None:
        """Ends a trial that can hardly win any more. In secret, it only notes where that would have been."""
        state, detector = self.state, self._stopping
        if detector is None or state.stop_progress is not None or not detector.add(state.step, progress, loss):
            return
        state.stop_progress = progress
        if not detector.rule.secret:
            state.stopped = time.monotonic()
            raise TrialFailed(detector.reason, "stopped")

    def _record_choices(self, message: Message) -> None:
        flops = _number(message, "flops_per_token")
        choices = message.get("choices")
        if not isinstance(choices, dict) or len(choices) > MAX_CHOICES:
            raise TrialFailed(f"broke the protocol: describe takes at most {MAX_CHOICES} choices")
        self.state.flops_per_token = flops if math.isfinite(flops) and flops > 0 else None
        self.state.choices = {
            one_line(name, MAX_CHOICE_LENGTH): Choice.parse(one_line(str(value), MAX_CHOICE_LENGTH))
            for name, value in choices.items()
        }

    def _take_weights(self, message: Message) -> Path:
        state = self.state
        if state.started is None:
            raise TrialFailed("handed weights over without one real batch", "invalid")
        state.stopped = time.monotonic()
        peak = message.get("peak_memory_mb")
        state.device_peak_mb = float(peak) if isinstance(peak, (int, float)) and math.isfinite(peak) else None
        budget = self.budget.seconds
        if budget is not None and state.seconds > budget + max(OVERRUN_FRACTION * budget, OVERRUN_SECONDS):
            raise TrialFailed(f"overran: {state.seconds:.1f} s of a budget of {budget:g} s", "invalid")
        return self.process.scratch / WEIGHTS

    def _report(self, phase: Literal["startup", "train"], fraction: float) -> None:
        now = time.monotonic()
        if now - self._reported < PROGRESS_SECONDS:
            return
        self._reported = now
        state = self.state
        speed = state.tokens / state.seconds if state.seconds > PROGRESS_SECONDS else None
        self.on_progress(
            Progress(phase=phase, fraction=fraction, step=state.step, loss=state.loss, tokens_per_second=speed)
        )


def check_budget(budget: Budget) -> None:
    """UserError for a budget that no trial can keep."""
    if budget.seconds is not None and budget.seconds < OVERRUN_SECONDS:
        raise UserError(f"a budget of {budget.seconds:g} s is too short: at least {OVERRUN_SECONDS:g} s")


def _integer(message: dict[str, Any], key: str) -> int:
    value = message.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise TrialFailed(f"broke the protocol: {key} of {message['type']!r} is no integer")
    return value


def _number(message: dict[str, Any], key: str) -> float:
    value = message.get(key)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TrialFailed(f"broke the protocol: {key} of {message['type']!r} is no number")
    return float(value)
