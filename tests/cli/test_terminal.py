"""What others wrote can neither drive a terminal nor hide there, whichever way it is printed."""

from __future__ import annotations

import dataclasses
import io
import json
import sys

import pytest
from campaigns import a_trial
from rich.console import Console

from core.cli.render import tables, terminal

ODD = "\x1b[31mred\x1b]0;title\x07 \x9b31m \u202eback\u2066 \U000e0041tag\r"


def assert_harmless(text: str) -> None:
    assert all(one == "\n" or one.isprintable() for one in text), ascii(text)


@pytest.mark.parametrize("printing", [terminal.json_text, terminal.json_line])
def test_json_says_the_same_in_harmless_letters(printing: object, capsys: pytest.CaptureFixture[str]) -> None:
    value = {"reason": ODD, ODD: ["é", 1, "line\nline", {"half": "\ud83d"}]}
    assert callable(printing)
    printing(value)
    printed = capsys.readouterr().out
    assert_harmless(printed)
    assert "é" in printed
    assert value.items() <= json.loads(printed).items()


def test_notices_are_cleaned(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.notice(f"a file named {ODD}\nand another line")
    told = capsys.readouterr().err
    assert_harmless(told)
    assert told.startswith("a file named red ")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_text_of_others_is_cleaned_for_a_terminal_and_whole_for_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream in (io.StringIO(), Terminal()):
        monkeypatch.setattr(sys, "stdout", stream)
        terminal.write(f"x = {ODD!r}{ODD}\n")
        assert (ODD in stream.getvalue()) != stream.isatty()
    assert_harmless(stream.getvalue())


def test_a_record_from_before_texts_were_cleaned_is_shown_clean() -> None:
    record = dataclasses.replace(a_trial(), verdict="crash", reason=f"Bad{ODD}", choices={f"ker{ODD}": f"a{ODD}"})
    printed = io.StringIO()
    Console(file=printed, width=200, no_color=True).print(tables.trial(record))
    assert_harmless(printed.getvalue())
