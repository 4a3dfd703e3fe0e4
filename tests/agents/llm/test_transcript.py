"""The transcript: readable while it streams, without keys, and never a reason for a run to end."""

import errno
import unicodedata
from decimal import Decimal
from pathlib import Path
from typing import Any

from core.agents.llm.base import Delta, Reply, Usage
from core.agents.llm.redact import Redactor
from core.agents.llm.transcript import Transcript, counted

KEY = "sk-ant-test-7f3a9c51e0d24b68"


def reply(**fields: Any) -> Reply:
    values: dict[str, Any] = dict(content=(), stop_reason="end_turn", usage=Usage(input=5, output=7), model="m")
    return Reply(**{**values, **fields})


def test_a_conversation_reads_from_top_to_bottom(tmp_path: Path) -> None:
    transcript = Transcript(tmp_path / "transcripts", Redactor([KEY]))
    transcript.request(12, "claude-opus-5-5")
    path = transcript.path(12)
    transcript.delta(Delta(kind="thinking", text="The warmup\nis "))
    assert path.read_text(encoding="utf-8").endswith("\n> The warmup\n> is ")  # before the block has ended
    for kind, text in [
        ("thinking", "long."),
        ("text", "I will halve it."),
        ("tool", "edit"),
        ("input", '{"old": "WARMUP = 200'),
        ("input", '", "new": "' + "x" * 5000 + '"}'),
        ("tool", "check"),
        ("tool", "odd"),
        ("input", '{"unfinished'),
    ]:
        transcript.delta(Delta(kind=kind, text=text))  # type: ignore[arg-type]
    transcript.replied(reply(usage=Usage(input=5, cache_read=1000, output=7)), Decimal("0.0123456"), 4.21)
    transcript.result("edit", "no such text\n```\n" + "y" * 5000, is_error=True)
    transcript.note("rate limit (429); again in 12 s")
    transcript.request(12, "claude-opus-5-5")
    transcript.replied(reply(stop_reason="refusal", detail="frontier_llm"), None, 0.5)
    transcript.close()

    text = path.read_text(encoding="utf-8")
    assert text.startswith("# Experiment 12\n\n## ") and text.count("· claude-opus-5-5") == 2
    shown = [
        '> The warmup\n> is long.\n\nI will halve it.\n\n**→ edit** `old="WARMUP = 200", new="xxx',
        '…`\n\n**→ check** \n\n**→ odd** `{"unfinished`\n',
        "*1,005 in (1,000 cached) · 7 out · $0.0123 · 4.2 s*",
        "**← edit** error\n````\nno such text\n```\nyyy",
        "more characters\n````\n",
        "*rate limit (429); again in 12 s*",
        "*refused: frontier_llm · 5 in · 7 out · no known price · 0.5 s*",
    ]
    places = [text.index(part) for part in shown]
    assert places == sorted(places)
    assert len(text) < 3000


def test_one_file_a_proposal_that_is_gone_on_with(tmp_path: Path) -> None:
    transcript = Transcript(tmp_path, Redactor([]))
    for experiment in (1, 2, 1):
        transcript.request(experiment, "m")
        transcript.delta(Delta(kind="text", text=f"about {experiment}"))
    transcript.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00001.md", "00002.md"]
    first = transcript.path(1).read_text(encoding="utf-8")
    assert first.count("about 1") == 2 and first.count("# Experiment 1\n") == 1


def test_a_key_that_streams_in_pieces_is_not_written(tmp_path: Path) -> None:
    transcript = Transcript(tmp_path, Redactor([KEY]))
    transcript.request(1, "m")
    for kind in ("thinking", "text"):
        for character in f"the key {KEY}, the end of one: {KEY[:9]}":
            transcript.delta(Delta(kind=kind, text=character))  # type: ignore[arg-type]
    transcript.delta(Delta(kind="tool", text="edit"))
    transcript.delta(Delta(kind="input", text=f'{{"a": "{KEY[:5]}'))
    transcript.delta(Delta(kind="input", text=f'{KEY[5:]}"}}'))
    transcript.result("edit", f"Authorization: Bearer {KEY}")
    transcript.note(KEY)
    transcript.close()
    text = transcript.path(1).read_text(encoding="utf-8")
    assert KEY not in text and text.count("[key]") == 5
    assert text.count(f"the end of one: {KEY[:9]}\n") == 2


def test_what_would_drive_a_terminal_is_not_written(tmp_path: Path) -> None:
    owned = "\x1b]0;owned\x07 \x9b31m\x7f\tand\r\nso"
    transcript = Transcript(tmp_path, Redactor([]))
    transcript.request(1, "m\x1b[2J")
    for kind in ("thinking", "text", "tool", "input"):
        for character in owned:
            transcript.delta(Delta(kind=kind, text=character))  # type: ignore[arg-type]
    transcript.result(owned, owned)
    transcript.note(owned)
    transcript.replied(reply(stop_reason="refusal", detail=owned), None, 0.5)
    transcript.close()
    text = transcript.path(1).read_bytes().decode("utf-8")
    assert {char for char in text if unicodedata.category(char) == "Cc"} == {"\n", "\t"}
    assert text.count("\tand") >= 5 and "\tand\nso" in text


def test_half_a_character_is_no_reason_to_stop(tmp_path: Path) -> None:
    transcript = Transcript(tmp_path, Redactor([]))
    transcript.request(1, "m")
    transcript.delta(Delta(kind="text", text="\ud83d"))
    transcript.close()
    assert "\ufffd" in transcript.path(1).read_text(encoding="utf-8")


def test_a_full_disk_ends_the_transcript_and_is_told_once(tmp_path: Path) -> None:
    got: list[str] = []
    transcript = Transcript(tmp_path, Redactor([]), got.append)
    transcript.request(1, "m")

    class Full:
        def write(self, text: str) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        flush = close = lambda self: self.write("")

    assert transcript._file is not None
    transcript._file.close()
    transcript._file = Full()  # type: ignore[assignment]
    transcript.delta(Delta(kind="text", text="a"))
    transcript.delta(Delta(kind="text", text="b"))
    transcript.note("c")
    transcript.close()
    assert len(got) == 1 and "No space left on device" in got[0]


def test_a_folder_that_can_not_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    got: list[str] = []
    transcript = Transcript(tmp_path / "file" / "transcripts", Redactor([]), got.append)
    transcript.request(1, "m")
    transcript.delta(Delta(kind="text", text="a"))
    transcript.request(2, "m")
    transcript.close()
    assert len(got) == 1


def test_a_count_in_a_line() -> None:
    used = Usage(input=1000, cache_read=10_000, cache_write=1345, output=678)
    assert counted(used, Decimal("0.0421")) == "12,345 in (10,000 cached) · 678 out · $0.0421"
