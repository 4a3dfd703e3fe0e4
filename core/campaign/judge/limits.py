"""What program.md adds to a score in a verdict: limits, and what simplicity and speed are worth. Pure functions.

A candidate is held against the champion by one number in bits per byte: its expected true gain, plus the price of the
lines that it has less, plus the price of the speed that it has more.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from core.campaign.judge.base import Policy
from core.campaign.judge.greedy import LowerWins
from core.records import PROGRAM, Experiment, Trial
from core.store.program import Limits
from core.trainer.fingerprint import NODES_PER_LINE

SAME = 0.03  # the share by which speeds and sizes in memory of one trainer differ from trial to trial
TOLERATED = 0.25  # of one trial's deviation: what a campaign may lose to simpler trainers beyond their price


@dataclass(frozen=True)
class _Limit:
    """How a limit is read off trials, and the words for what breaks it."""

    value: Callable[[Trial], float | None]
    says: str
    at_least: bool = False
    digits: int = 0


# By their names in `Limits`.
_LIMITS = {
    "memory_mb": _Limit(lambda trial: trial.peak_memory_mb, "uses {} MB"),
    "parameters": _Limit(lambda trial: trial.parameters, "has {} parameters"),
    "tokens_per_second": _Limit(lambda trial: trial.tokens_per_second, "trains {} tokens/s", at_least=True),
    "startup_seconds": _Limit(lambda trial: trial.startup_seconds, "takes {} s to start", digits=1),
    "val_bpb": _Limit(lambda trial: trial.val_bpb, "reaches {} bpb", digits=4),
}


def breach(trials: Iterable[Trial], limits: Limits, val_bpb: float | None = None) -> str:
    """What a trainer's scored trials break: `uses 14,300 MB, program.md allows 12,000`; empty for nothing.

    The median of the trials counts. `val_bpb` is the belief, which stands in for the raw scores. What was not
    measured breaks nothing: `unmeasured` names it.
    """
    return "; ".join(found.says for found in _broken(trials, limits, val_bpb).values())


def ruling(
    trials: Iterable[Trial],
    champion: Iterable[Trial],
    limits: Limits,
    val_bpb: float | None = None,
    champion_bpb: float | None = None,
) -> tuple[Literal["keep", "discard"], str] | None:
    """The verdict that limits alone give, with its reason; None where the worth decides.

    Within the limits beats beyond them, whatever the scores. Where the champion breaks one too (program.md was changed,
    or the baseline is beyond), a candidate may break no limit by more than the champion does.
    """
    ours, theirs = _broken(trials, limits, val_bpb), _broken(champion, limits, champion_bpb)
    said = "; ".join(found.says for found in ours.values())
    if ours and not theirs:
        return "discard", said
    if theirs and not ours:
        return "keep", f"within {PROGRAM}'s limits; the champion {'; '.join(found.says for found in theirs.values())}"
    if any(name not in theirs or found.excess > theirs[name].excess * (1 + SAME) for name, found in ours.items()):
        return "discard", f"{said}; the champion breaks that less"
    return None


def are_held(policy: Policy) -> bool:
    """Whether the policy's verdicts know limits and prices."""
    return policy.name != LowerWins.name


def unmeasured(trials: Sequence[Trial], limits: Limits) -> list[str]:
    """The limits that hold and that no trial measured, by their names in `Limits`."""
    return [
        name
        for name, limit in _LIMITS.items()
        if getattr(limits, name) is not None and trials and all(limit.value(trial) is None for trial in trials)
    ]


@dataclass(frozen=True)
class _Broken:
    says: str
    excess: float  # above 1: the value over the limit, or the limit over a value that should reach it


def _broken(trials: Iterable[Trial], limits: Limits, val_bpb: float | None) -> dict[str, _Broken]:
    scored = [trial for trial in trials if trial.verdict == "scored"]
    found = {}
    for name, limit in _LIMITS.items():
        bound = getattr(limits, name)
        value = val_bpb if name == "val_bpb" and val_bpb is not None else _median(map(limit.value, scored))
        if bound is None or value is None:
            continue
        excess = (bound / value if value else math.inf) if limit.at_least else value / bound
        if excess > 1:
            shown, allowed = _apart(value, bound, limit.digits)
            asks = "asks for" if limit.at_least else "allows"
            found[name] = _Broken(f"{limit.says.format(shown)}, {PROGRAM} {asks} {allowed}", excess)
    return found


def _apart(value: float, bound: float, digits: int) -> tuple[str, str]:
    """Both numbers with as many decimals as it takes to tell them apart."""
    while True:
        shown = f"{value:,.{digits}f}", f"{bound:,.{digits}f}"
        if shown[0] != shown[1] or digits >= 9:
            return shown
        digits += 2


def speed(trials: Iterable[Trial]) -> float | None:
    """The median tokens/s of a trainer's scored trials."""
    return _median(trial.tokens_per_second for trial in trials if trial.verdict == "scored")


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


@dataclass(frozen=True, kw_only=True)
class Bonus:
    """What keeping a candidate is worth beside its gain, in bits per byte."""

    lines: float  # that it has less than the champion
    simplicity: float  # what these are worth; below 0 for more lines
    ratio: float  # of its tokens/s to the champion's
    speed: float  # what that is worth; nothing within SAME
    tolerance: float = (
        0.0  # of one that is simpler by a line: the loss beyond its price that the lineage can still bear
    )

    @property
    def price(self) -> float:
        """Simplicity and speed together."""
        return self.simplicity + self.speed

    @property
    def most(self) -> float:
        """The price, and the tolerance where it is equal within the noise: what a further trial may be spent on."""
        return self.price + self.tolerance

    def keeps(self, gain: float, deviation: float, worth: float) -> bool:
        """Whether a candidate is kept: its gain is worth something, or its price pays for what the gain lacks.

        `gain` and `deviation` are the belief's, and `worth` is the gain less its hurdle, never above it. One that is a
        line simpler and equal within the noise (no loss beyond one deviation) may also use the tolerance.
        """
        return worth + self.price > 0 or (gain >= -deviation and worth + self.most > 0 and self.tolerance > 0)

    def reason(self, belief: str, gain: float, deviation: float, *, kept: bool) -> str:
        """The sentence about the belief, with the prices, and led by the part that decided where the gain did not."""
        lead = ""
        if kept and self.lines >= 1 and self.simplicity > 0 and -deviation <= gain <= deviation:
            lead = "equal within the noise, and simpler: "
        elif kept and gain + self.simplicity <= 0 < self.speed:
            lead = "kept for its speed: "
        elif not kept and 0 < gain <= -self.price:
            costs = [self.simplicity < 0 and "its lines", self.speed < 0 and "its speed"]
            lead = f"the gain does not pay for {' and '.join(cost for cost in costs if cost)}: "
        return lead + "; ".join([belief, *self._prices()])

    def _prices(self) -> list[str]:
        parts = []
        if self.simplicity and abs(self.lines) >= 0.5:
            count = round(abs(self.lines))
            lines = f"{count} line{'s' if count > 1 else ''} {'less' if self.lines > 0 else 'more'}"
            parts.append(f"{lines}, {_priced(self.simplicity)}")
        if self.speed:
            parts.append(f"{self.ratio:.2f}x the champion's tokens/s, {_priced(self.speed)}")
        return parts


def _priced(value: float) -> str:
    return f"worth {value:.4f}" if value > 0 else f"which cost {-value:.4f}"


def bonus(
    limits: Limits,
    *,
    nodes: int | None = None,
    champion_nodes: int | None = None,
    speed: float | None = None,
    champion_speed: float | None = None,
    noise: float = 0.0,
    lineage: Sequence[Experiment] = (),
) -> Bonus:
    """What program.md's prices add to a candidate's gain.

    `nodes` are of both syntax trees, `speed` both medians in tokens/s, `noise` is the deviation of one trial's score,
    and `lineage` the kept experiments, oldest first, whose losses the tolerance has borne. What is unknown (None, or 0)
    counts for nothing.
    """
    lines = (champion_nodes - nodes) / NODES_PER_LINE if nodes and champion_nodes else 0.0
    ratio = speed / champion_speed if speed and champion_speed else 1.0
    doublings = math.copysign(max(0.0, abs(math.log2(ratio)) - math.log2(1 + SAME)), ratio - 1)
    simplicity = limits.bpb_per_line * lines
    simpler = lines >= 1 and simplicity > 0
    return Bonus(
        lines=lines,
        simplicity=simplicity,
        ratio=ratio,
        speed=limits.bpb_per_doubled_speed * doublings,
        tolerance=max(0.0, TOLERATED * noise - borne(lineage)) if simpler else 0.0,
    )


def borne(lineage: Sequence[Experiment]) -> float:
    """The expected losses, in bits per byte, that kept experiments brought beyond the price of their lines.

    So however often something is taken out that costs less than the noise shows, a lineage expects to lose no more than
    its lines are worth and TOLERATED of a trial's deviation.
    """
    total = 0.0
    for before, after in itertools.pairwise(lineage):
        if after.gain is not None and after.nodes is not None and before.nodes is not None:
            price = after.limits.get("bpb_per_line", 0.0) * (before.nodes - after.nodes) / NODES_PER_LINE
            total += max(0.0, -after.gain - price)
    return total
