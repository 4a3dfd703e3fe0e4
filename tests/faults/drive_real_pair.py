"""Run as a process of its own: an experiment of real trials that takes a pair, killed between two of them.

    drive_real_pair.py ROOT [ROWS]

With ROWS it kills itself behind so many rows of trials; without, it goes on to the verdict and prints it as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from campaigns import Pairs, ScriptedAgent, Steps  # noqa: E402

from core.campaign.campaign import Campaign  # noqa: E402
from core.store.ledger import Ledger  # noqa: E402


def kill_behind(rows: int) -> None:
    """Ends this process abruptly once so many trials are recorded."""
    write, seen = Ledger._write, []

    def counted(ledger: Ledger, table: str, *values: object) -> None:
        write(ledger, table, *values)
        if table in ("trials", "measurements"):
            seen.append(table)
            if len(seen) == rows:
                os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))

    Ledger._write = counted  # type: ignore[method-assign, assignment]


def main(arguments: list[str]) -> int:
    if len(arguments) > 1:
        kill_behind(int(arguments[1]))
    with Campaign.open(Path(arguments[0]), engine=Steps(), policy=Pairs()) as campaign:
        text = campaign.trainer_text(campaign.branch)
        campaign.run(ScriptedAgent([f"{text}\nIDEA = 1\n"]))
        one = campaign.experiment(1)
        rows = [(row.role, row.trial.seed, row.trial.val_bpb) for row in campaign.ledger.all_measurements()]
        found = {
            "verdict": (one.verdict, one.reason, one.val_bpb, one.champion_bpb, one.effect),
            "trials": [(trial.seed, trial.val_bpb) for trial in one.trials],
            "measured": rows,
            # The baseline's verdict is by the campaign's own policy.
            "audit": [check.fault for check in campaign.verify(scores=False) if check.subject == "experiment 1"],
        }
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
