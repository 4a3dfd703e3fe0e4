"""Run as a process of its own, as `drive_campaign`: a campaign whose device gets slower, confirmed at its end.

drive_drift.py ROOT [KILL_AT]
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from campaigns import ScriptedAgent, ScriptedEngine, a_campaign, trainer  # noqa: E402
from faults.drive_campaign import driven  # noqa: E402

from core.campaign.campaign import Campaign  # noqa: E402
from core.records import Trial, UserError  # noqa: E402

SLOW_FROM = 4  # the number of the experiment
TEXTS = [trainer(score) for score in (1.9, 1.95, 1.96, 1.97, 1.98, 1.99, 1.88, 1.94)]


def slower(into: Path, trial: Trial) -> Trial:
    """By the folder alone, so that a trial that runs again after a kill comes to the same."""
    if "confirm" in into.parts or ("drift" not in into.parts and int(into.parts[-2]) < SLOW_FROM):
        return trial
    assert trial.val_bpb is not None
    return dataclasses.replace(trial, tokens_per_second=16_000.0, val_bpb=trial.val_bpb + 0.05)


def drive(root: Path) -> None:
    engine = ScriptedEngine(record=slower)
    try:
        campaign = Campaign.open(root, engine=engine)
    except UserError:
        campaign = a_campaign(root, engine=engine)
    with campaign:
        campaign.run(ScriptedAgent(TEXTS))
        campaign.confirm(2)


def main(arguments: list[str]) -> int:
    root, *rest = arguments
    return driven(lambda: drive(Path(root)), rest[0] if rest else None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
