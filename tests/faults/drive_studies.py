"""Run as a process of its own, as `drive_campaign`: a campaign whose champion is ablated and carried to another scale.

drive_studies.py ROOT [KILL_AT]
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from campaigns import ScriptedAgent, ScriptedEngine, a_campaign, trainer  # noqa: E402
from faults.drive_campaign import driven  # noqa: E402

from core.campaign.campaign import Campaign  # noqa: E402
from core.campaign.judge.greedy import LowerWins  # noqa: E402
from core.campaign.transfer import scaled_preset  # noqa: E402
from core.records import UserError  # noqa: E402

FIRST = trainer(1.9)
TEXTS = [FIRST, FIRST.replace("1.9 ", "1.8 ").replace("    pass\n", "    print()\n")]
OTHER = {"budget_seconds": "0.6"}


def drive(root: Path) -> None:
    try:
        campaign = Campaign.open(root, engine=ScriptedEngine(), policy=LowerWins())
    except UserError:
        campaign = a_campaign(root, engine=ScriptedEngine(), policy=LowerWins())
    with campaign:
        campaign.run(ScriptedAgent(TEXTS))
        campaign.ablate(2)
        campaign.transfer(scaled_preset(campaign.preset, None, OTHER), 2)


def main(arguments: list[str]) -> int:
    root, *rest = arguments
    return driven(lambda: drive(Path(root)), rest[0] if rest else None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
