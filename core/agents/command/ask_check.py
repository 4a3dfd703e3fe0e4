"""Asks, from within the sandbox, for a check of train.py: `python -I -S ask_check.py WORK ANSWERS`.

Run as a file by a command that nobody trusts, so it only asks: what is checked, and how often, is `checks.py`'s.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

REQUEST, WORKS = ".check", "it works"


def main(arguments: list[str]) -> int:
    """Prints the answer; status 0 where the trainer works."""
    work, answers = Path(arguments[0]), Path(arguments[1])
    answer = answers / f"{sum(1 for _ in answers.iterdir())}.txt"
    (work / REQUEST).touch()
    while not answer.exists():
        time.sleep(0.1)
    text = answer.read_text(encoding="utf-8")
    print(text, end="")
    return 0 if text.startswith(WORKS) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
