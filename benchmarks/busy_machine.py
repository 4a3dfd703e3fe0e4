"""Tokens/s of a preset beside processes that do nothing but compute: `python -m benchmarks.busy_machine --preset cpu`.

Each case is a whole `autoresearch train`, as a campaign runs it. Cases take turns, so that what changes on the machine
changes all of them alike. `--with NAME=VALUE` sets a variable for all; `--command` measures another checkout's command.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

SPIN = "while True: pass"


def main() -> int:
    """Prints one line a trial and the medians; 1 if a trial failed."""
    options = _options()
    speeds: dict[tuple[str, int], list[float]] = {}
    variables = os.environ | dict(pair.split("=", 1) for pair in options.variables)
    for round_number in range(options.rounds):
        for busy in options.busy:
            for command in options.command:
                with beside(busy):
                    trial = train(command, options, variables)
                if trial.get("tokens_per_second") is None:
                    print(f"{command}: {trial.get('verdict')}: {trial.get('reason')}", file=sys.stderr)
                    return 1
                speeds.setdefault((command, busy), []).append(trial["tokens_per_second"])
                held = " ".join(f"{name}={value}" for name, value in trial.get("thread_settings", {}).items())
                print(
                    f"round {round_number + 1}  beside {busy}  {trial['tokens_per_second']:9,.0f} tokens/s"
                    f"  {trial['steps']:4} steps  start-up {trial['startup_seconds']:5.2f} s  {command}  {held}",
                    flush=True,
                )
    print()
    for (command, busy), found in speeds.items():
        quiet = statistics.median(speeds[command, options.busy[0]])
        median = statistics.median(found)
        share = f"{median / quiet:.0%} of beside {options.busy[0]}"
        print(f"beside {busy}  median {median:9,.0f} tokens/s  {share}  {command}")
    return 0


@contextlib.contextmanager
def beside(busy: int) -> Iterator[None]:
    """So many processes compute meanwhile, each in a session of its own as another program would be."""
    others = [subprocess.Popen([sys.executable, "-c", SPIN], start_new_session=True) for _ in range(busy)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def train(command: str, options: argparse.Namespace, variables: dict[str, str]) -> dict[str, Any]:
    """One trial's record."""
    settings = [word for setting in options.set for word in ("--set", setting)]
    budget = ["--budget", str(options.budget), "--json"]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [command, "train", "--preset", options.preset, *budget, *settings],
            env=variables, cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
    lines = done.stdout.strip().splitlines()
    if not lines:
        sys.exit(f"{command}: {done.stderr.strip()}")
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--budget", type=float, default=8, help="seconds of each trial")
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 2], help="how many processes compute beside it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as `autoresearch train --set`")
    parser.add_argument("--with", dest="variables", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--command", nargs="+", default=["autoresearch"], help="commands to compare")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
