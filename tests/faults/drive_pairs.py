"""Run as a process of its own, as `drive_campaign`: a campaign whose policy asks for several trials, also of champions.

    drive_pairs.py ROOT POLICY [KILL_AT]

Trials come to what their trainer, their seed and their place say, so that one that runs again comes to the same.
"""

from __future__ import annotations

import dataclasses
import random
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from campaigns import POLICIES, ScriptedAgent, ScriptedEngine, a_campaign, trainer  # noqa: E402
from faults.drive_campaign import driven  # noqa: E402

from core.campaign.campaign import Campaign  # noqa: E402
from core.campaign.judge.base import Policy  # noqa: E402
from core.records import Trial, UserError  # noqa: E402

TEXTS = [trainer(score) for score in (1.988, 1.99, 1.9835, 1.984, 1.97, 1.966, 1.98)]


def noisy(into: Path, trial: Trial) -> Trial:
    """As scores with noise; one trial ran beside other work."""
    busy = {"other_load": 0.5} if into.parts[-3:] == ("experiments", "3", "0") else {}
    noise = random.Random(f"{trial.val_bpb} {trial.seed}").gauss(0, 0.004)
    return dataclasses.replace(trial, val_bpb=(trial.val_bpb or 0) + noise, conditions=busy)


def drive(root: Path, policy: Policy) -> None:
    engine = ScriptedEngine(record=noisy)
    try:
        campaign = Campaign.open(root, engine=engine, policy=policy)
    except UserError:
        campaign = a_campaign(root, engine=engine, policy=policy)
    with campaign:
        campaign.run(ScriptedAgent(TEXTS))


def main(arguments: list[str]) -> int:
    root, policy, *rest = arguments
    return driven(lambda: drive(Path(root), POLICIES[policy]), rest[0] if rest else None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
