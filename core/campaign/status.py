"""How a campaign stands: its counts, its best scores, its pace and its costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.agents.llm.archive import Costs, costs
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


def status_of(campaign: CampaignReader, confirmation: Confirmation | None) -> Status:
    totals = campaign.ledger.totals()
    candidate_seconds, wall = totals.candidate_seconds, totals.wall_seconds
    return Status(
        baseline_bpb=totals.baseline_bpb,
        champion_bpb=totals.champion_bpb,
        champion_commit=totals.champion_commit,
        experiments=totals.experiments,
        kept=totals.kept,
        discarded=totals.discarded,
        crashed=totals.crashed,
        invalid=totals.invalid,
        experiments_per_hour=3600 * totals.experiments / candidate_seconds if candidate_seconds else None,
        overhead_fraction=(wall - totals.train_seconds) / wall if wall else None,
        yardstick=campaign.ledger.facts().get("yardstick"),
        confirmation=confirmation,
        model=costs(campaign.files.agents, totals.experiments, totals.kept),
    )
