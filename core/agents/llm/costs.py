"""What a campaign's agents used of models: the sums of their archive beside what the experiments came to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from core.agents.llm.archive import spent


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Of a whole campaign, in US dollars and tokens. What has no price is counted in `unpriced` requests."""

    usd: float
    usd_per_experiment: float | None
    usd_per_keep: float | None  # what a kept gain cost; None while nothing was kept
    requests: int
    failed: int
    unpriced: int
    tokens: int
    output_tokens: int
    cache_read_tokens: int


def costs(state: Path, experiments: int, kept: int) -> Costs | None:
    """Of a campaign whose agents keep their files in `state`; None if they asked no model."""
    found = spent(state)
    if found is None:
        return None
    usd = float(found.usd)
    return Costs(
        usd=usd,
        usd_per_experiment=usd / experiments if experiments else None,
        usd_per_keep=usd / kept if kept else None,
        requests=found.requests,
        failed=found.failed,
        unpriced=found.unpriced,
        tokens=found.usage.total,
        output_tokens=found.usage.output,
        cache_read_tokens=found.usage.cache_read,
    )
