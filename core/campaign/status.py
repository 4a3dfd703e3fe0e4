"""How a campaign stands: its counts, its best scores, its pace and its costs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.agents.llm.archive import Costs, costs
from core.store import activity
from core.store.activity import Activity
from core.store.ledger import StopTotals
from core.store.reader import CampaignReader

if TYPE_CHECKING:
    from core.campaign.confirm import Confirmation


@dataclass(frozen=True, kw_only=True)
class Status:
    """What `status --json` prints. The counts leave out the baseline; the shares of time include it."""

    baseline_bpb: float | None
    champion_bpb: float | None
    champion_commit: str | None
    experiments: int
    kept: int
    discarded: int
    crashed: int
    invalid: int
    experiments_per_hour: float | None
    overhead_fraction: float | None  # wall beyond training, over wall
    yardstick: str | None
    confirmation: Confirmation | None = None  # the last one
    model: Costs | None = None  # what agents spent on models; None if they used none
    activity: Activity | None = None  # what writes to it now, or did so last; None if nothing ever did
    stopped: int = 0
    stops: StopTotals | None = None  # None where no trial was stopped early or would have been
    kept_within_spread: int = 0  # of those kept: their gain is no larger than what the baseline's seeds differ by


def status_of(campaign: CampaignReader, confirmation: Confirmation | None) -> Status:
    totals = dataclasses.asdict(campaign.ledger.totals())
    candidate_seconds, wall, train = (totals.pop(f"{name}_seconds") for name in ("candidate", "wall", "train"))
    return Status(
        **totals,
        experiments_per_hour=3600 * totals["experiments"] / candidate_seconds if candidate_seconds else None,
        overhead_fraction=(wall - train) / wall if wall else None,
        yardstick=campaign.ledger.facts().get("yardstick"),
        confirmation=confirmation,
        model=costs(campaign.files.agents, totals["experiments"], totals["kept"]),
        activity=activity.read(campaign.files),
        stops=campaign.ledger.stops(),
    )
