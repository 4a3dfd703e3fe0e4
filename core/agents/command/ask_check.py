"""Requests a check of train.py from within the sandbox: `python -I -S ask_check.py WORK ANSWERS`.

The command, which is not trusted, runs this file. `checks.py`, outside, decides what is checked and how often.
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
