"""The `autoresearch` command in this process: what it answered."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import signal
import sys
from typing import Any

import json_outputs
import pytest

from core.cli.app import main
from core.system.signals import SIGNALS


@dataclasses.dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def last(self) -> Any:
        """The JSON on the last line of standard output."""
        return json.loads(self.out.splitlines()[-1])


def call(*arguments: object, code: int = 0) -> Answer:
    """Runs the command in this process. Fails if it doesn't end with `code`."""
    out, err = io.StringIO(), io.StringIO()
    before, sys.argv = sys.argv, ["autoresearch", *map(str, arguments)]
    # A command ignores these signals when it ends, because its process ends with it.
    heard = {one: signal.getsignal(one) for one in SIGNALS}
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main()
    finally:
        sys.argv = before
        for one, handler in heard.items():
            signal.signal(one, handler)
    answer = Answer(int(ended.value.code or 0), out.getvalue(), err.getvalue())
    assert answer.code == code, answer
    if "--json" in arguments and code != 2:
        json_outputs.check([str(argument) for argument in arguments], answer.out)
    assert "core/cli/" not in answer.err.replace(os.sep, "/")  # no traceback of our own
    return answer
