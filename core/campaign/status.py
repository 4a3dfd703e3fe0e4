"""How a campaign stands: its counts, its best scores, its pace and its costs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.agents.llm.archive import Costs, costs
from core.store import activity
from core.store.activity import Activity
from core.store.ledger import DisturbedTrial, StopTotals
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
    stops: StopTotals | None = None  # None where no trial was stopped early or would have been
    kept_within_spread: int = 0  # of those kept without beliefs: their gain is no larger than the baseline's spread
    stopped: int = 0  # early, since they could hardly have won
    disturbed: int = 0  # trials whose speed other load or throttling changed
    disturbed_trials: tuple[DisturbedTrial, ...] = ()
    baseline_deviation: float | None = None  # standard deviation of the belief baseline_bpb; null without beliefs
    champion_deviation: float | None = None  # of the belief champion_bpb, the newest one


def status_of(campaign: CampaignReader, confirmation: Confirmation | None) -> Status:
    ledger = campaign.ledger
    totals = dataclasses.asdict(ledger.totals())
    first, last = ledger.experiment(0), ledger.champion()
    baseline, champion = (None if one is None else ledger.believed(one) for one in (first, last))
    candidate_seconds, wall, train = (totals.pop(f"{name}_seconds") for name in ("candidate", "wall", "train"))
    return Status(
        **totals,
        baseline_bpb=None if baseline is None else baseline.val_bpb,
        baseline_deviation=None if baseline is None else baseline.deviation,
        champion_bpb=None if champion is None else champion.val_bpb,
        champion_deviation=None if champion is None else champion.deviation,
        champion_commit=None if champion is None else champion.commit,
        experiments_per_hour=3600 * totals["experiments"] / candidate_seconds if candidate_seconds else None,
        overhead_fraction=(wall - train) / wall if wall else None,
        yardstick=campaign.ledger.facts().get("yardstick"),
        confirmation=confirmation,
        model=costs(campaign.files.agents, totals["experiments"], totals["kept"]),
        activity=activity.read(campaign.files),
        stops=campaign.ledger.stops(),
        disturbed_trials=campaign.ledger.disturbed(),
    )
