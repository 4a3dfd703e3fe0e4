"""An overnight campaign in small: hybrid, with a loopback server whose model is a script, and an outage in the middle.

    python benchmarks/overnight.py night --hours 0.5

Runs `autoresearch run` as a person would, unattended, and tells what came of it. Ends with status 1 where something
did not hold: too few experiments, a cost that differs from the server's own count, a key in a file, ...
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]

from messages_server import MessagesServer  # noqa: E402
from served_model import billed  # noqa: E402

from benchmarks.overnight_model import ScriptedModel  # noqa: E402
from core.agents.llm import archive, prices  # noqa: E402
from core.campaign.campaign import Campaign  # noqa: E402
from core.records import Experiment  # noqa: E402

MODEL = "claude-sonnet-5"


def main() -> int:
    """The report on standard output, as JSON; what the run tells goes to standard error."""
    options = _options()
    model = ScriptedModel()
    server = MessagesServer(model)
    server.start()
    command = [
        sys.executable, "-m", "core.cli", "run", str(options.folder), "--preset", options.preset,
        "--budget", str(options.budget), "--agent", "hybrid", "--hours", str(options.hours),
        "--endpoint", server.url, "--model", MODEL, "--max-cost", str(options.max_cost), "--json",
    ]  # fmt: skip
    environment = {**os.environ, "ANTHROPIC_API_KEY": server.key}
    began = time.monotonic()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    down: list[float] = []
    outage = threading.Thread(target=_outage, args=(server, options, process, down), daemon=True)
    outage.start()
    rows = [json.loads(line) for line in process.stdout or ()]
    status = process.wait()
    server.stop()
    report = _report(options.folder, server, rows, down)
    report |= {"status": status, "hours": (time.monotonic() - began) / 3600, "proposals": model.proposals}
    print(json.dumps(report, indent=1))
    wrong = {
        "ended otherwise than it should": status != 0,
        "too few experiments": report["experiments"] < options.at_least,
        "cost differs from the server's count": Decimal(report["usd"]) != Decimal(report["usd_by_the_server"]),
        "a key in a file": bool(report["files_with_the_key"]),
        "no experiment during the outage": options.outage_minutes > 0 and report["during_outage"] == 0,
        "the branch is not at the best": not report["head_is_the_best"],
    }
    for what in (what for what, holds in wrong.items() if holds):
        print(f"overnight: {what}", file=sys.stderr)
    return int(any(wrong.values()))


def _outage(
    server: MessagesServer, options: argparse.Namespace, process: subprocess.Popen[str], down: list[float]
) -> None:
    """Takes the server off the network in the middle of the run."""
    minutes = options.outage_minutes
    if not minutes:
        return
    time.sleep(max(0.0, (options.hours * 60 - minutes) / 2 * 60))
    down += [time.time(), time.time() + minutes * 60]
    print(f"overnight: the server is gone for {minutes:g} min", file=sys.stderr)
    server.stop()
    time.sleep(minutes * 60)
    if process.poll() is None:
        server.start()
        print("overnight: the server is back", file=sys.stderr)


def _report(folder: Path, server: MessagesServer, rows: list[dict[str, Any]], down: list[float]) -> dict[str, Any]:
    with Campaign.open(folder) as campaign:
        found = campaign.experiments()
        spending = archive.spent(campaign.files.agents)
        champion = campaign.champion
    assert spending is not None
    price = prices.known(MODEL)
    assert price is not None
    counted = sum(map(price.cost, billed(server)), Decimal(0))
    files = [path for path in folder.rglob("*") if path.is_file()]
    key = server.key.encode()
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True)
    scored = [one for one in found if one.val_bpb is not None and one.verdict in ("keep", "discard")]
    by_agent: dict[str, dict[str, int]] = {}
    for one in found[1:]:
        counts = by_agent.setdefault(one.agent, {})
        counts[one.verdict] = counts.get(one.verdict, 0) + 1
    return {
        "experiments": len(found) - 1,
        "rows": len(rows),
        "during_outage": sum(len(down) == 2 and down[0] < _ended(one) < down[1] for one in found),
        "by_agent": by_agent,
        "baseline_bpb": found[0].val_bpb,
        "champion_bpb": champion.val_bpb,
        "champion": champion.number,
        "requests": spending.requests,
        "failed": spending.failed,
        "tokens": spending.usage.total,
        "cache_read": spending.usage.cache_read,
        "usd": f"{spending.usd:f}",
        "usd_by_the_server": str(counted),
        "files": len(files),
        "files_with_the_key": [str(path) for path in files if key in path.read_bytes()],
        "head_is_the_best": head.stdout.strip() == champion.commit
        and (
            champion.deviation is not None  # a belief: a discarded one may be believed to be as good
            or champion.val_bpb == min(one.val_bpb for one in scored if one.val_bpb is not None)
        ),
    }


def _ended(experiment: Experiment) -> float:
    return datetime.fromisoformat(experiment.ended).timestamp()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="a new folder for the campaign")
    parser.add_argument("--hours", type=float, default=0.5)
    parser.add_argument("--budget", type=float, default=20, help="seconds of a trial")
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--outage-minutes", type=float, default=4)
    parser.add_argument("--at-least", type=int, default=40, help="experiments")
    parser.add_argument("--max-cost", type=float, default=50, help="USD")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
