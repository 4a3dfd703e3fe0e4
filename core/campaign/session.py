"""What everything that writes to a campaign shares while its lock is held."""

from __future__ import annotations

from dataclasses import dataclass

from core.campaign.judge.base import Policy
from core.events import OnEvent
from core.store.reader import CampaignReader
from core.trial.engine import Engine


@dataclass(frozen=True, kw_only=True)
class Session:
    """One call that writes: a run, a try or a confirmation."""

    campaign: CampaignReader
    engine: Engine
    policy: Policy
    tell: OnEvent
    full_trials: bool = False  # no trial is stopped early
