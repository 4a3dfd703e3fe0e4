"""Transcripts that a person can follow with `tail -f`: one Markdown file a proposal, written as it streams.

The archive has everything in full. If a transcript can't be written, the run goes on without it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import IO, Literal

from core.agents.llm.base import Delta, Message, Reply, Usage
from core.agents.llm.redact import Redactor
from core.system.text import clean, one_line

FOLDER = "transcripts"
ARGUMENTS = 240  # characters of a tool's input that are shown
RESULT, LINES = 1200, 20  # characters and lines of its result


class Transcript:
    """Writes to `folder`. `on_failure` is called once, with a line, if it can't be written."""

    def __init__(self, folder: Path, redact: Redactor, on_failure: Callable[[str], None] = lambda text: None) -> None:
        self.folder = folder
        self._redact = redact
        self._on_failure = on_failure
        self._failed = False
        self._experiment: int | None = None
        self._file: IO[str] | None = None
        self._kind: Literal["thinking", "text", "tool", "input"] | None = None
        self._held = ""  # the end of what streamed, if it could be the beginning of a key
        self._input: list[str] = []

    def path(self, experiment: int) -> Path:
        return self.folder / f"{experiment:05d}.md"

    def request(self, experiment: int, model: str) -> None:
        """Write that a request is sent; what streams from now on is its answer."""
        self._end()
        if experiment != self._experiment:
            self.close()
            self._experiment = experiment
            self._open(experiment)
        self._write(f"\n## {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC · {model}\n")

    def delta(self, delta: Delta) -> None:
        if delta.kind == "tool":
            self._end()
            self._write(f"\n**→ {self._redact(delta.text)}** ")
        elif delta.kind != "input" and self._kind != delta.kind:
            self._end()
            self._write("\n> " if delta.kind == "thinking" else "\n")
        self._kind = delta.kind
        if delta.kind == "input":
            self._input.append(delta.text)
        elif delta.kind != "tool":
            self._stream(delta.text)

    def results(self, messages: Sequence[Message]) -> None:
        """Write what the tools of the last answer returned, which a request's last message holds."""
        if len(messages) < 2:
            return
        names = {block.get("id"): block.get("name") for block in messages[-2]["content"]}
        for block in messages[-1]["content"]:
            if block["type"] == "tool_result":
                name = str(names.get(block["tool_use_id"]))
                self.result(name, block["content"], is_error=block.get("is_error", False))

    def result(self, name: str, text: str, *, is_error: bool = False) -> None:
        """Write what a tool returned, shortened."""
        self._end()
        what = "error" if is_error else "result"
        text = self._redact(text)
        shown = "\n".join(text.splitlines()[:LINES])[:RESULT]
        if len(shown) < len(text.rstrip()):
            shown += f"\n... {len(text) - len(shown)} more characters"
        fence = "```"
        while fence in shown:
            fence += "`"
        self._write(f"\n**← {self._redact(name)}** {what}\n{fence}\n{shown}\n{fence}\n")

    def note(self, text: str) -> None:
        """Write about a wait, a failure, or what else a reader should know."""
        self._end()
        self._write(f"\n*{self._redact(text)}*\n")

    def replied(self, reply: Reply, usd: Decimal | None, seconds: float) -> None:
        self._end()
        ends = {"refusal": "refused", "max_tokens": "out of tokens", "context_full": "the context is full"}
        why = ends.get(reply.stop_reason, "")
        if why and reply.detail:
            why += f": {self._redact(reply.detail)}"
        self._write(f"\n*{why + ' · ' if why else ''}{counted(reply.usage, usd)} · {seconds:.1f} s*\n")

    def close(self) -> None:
        self._end()
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
        self._file = self._experiment = None

    def _stream(self, text: str) -> None:
        whole = self._held + text
        held = self._redact.held(whole)
        self._held = whole[len(whole) - held :]
        self._put(whole[: len(whole) - held])

    def _put(self, text: str) -> None:
        text = self._redact(text)
        self._write(text.replace("\n", "\n> ") if self._kind == "thinking" else text)

    def _end(self) -> None:
        """End a block."""
        if self._held:
            held, self._held = self._held, ""
            self._put(held)
        if self._kind in {"tool", "input"}:
            arguments = _arguments(self._redact("".join(self._input))).replace("`", "'")
            self._write(f"`{arguments}`\n" if arguments else "\n")
        elif self._kind is not None:
            self._write("\n")
        self._input.clear()
        self._kind = None

    def _open(self, experiment: int) -> None:
        path = self.path(experiment)
        with self._failures_reported():
            self.folder.mkdir(parents=True, exist_ok=True)
            new = not path.exists()
            self._file = path.open("a", encoding="utf-8", newline="\n")
            if new:
                self._write(f"# Experiment {experiment}\n")

    def _write(self, text: str) -> None:
        if self._file is not None and text:
            with self._failures_reported():
                self._file.write(clean(text))
                self._file.flush()

    @contextlib.contextmanager
    def _failures_reported(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # What could not be flushed stays in the file object's buffer, and closing it would raise again.
            file, self._file = self._file, None
            if file is not None:
                with contextlib.suppress(OSError):
                    file.close()
            if not self._failed:
                self._failed = True
                self._on_failure(f"the transcript in {self.folder} can't be written: {error.strerror or error}")


def counted(usage: Usage, usd: Decimal | None) -> str:
    """Tokens and cost in a line: "12,345 in (10,000 cached) · 678 out · $0.0421"."""
    read = f" ({usage.cache_read:,} cached)" if usage.cache_read else ""
    cost = "no known price" if usd is None else f"${usd:.4f}"
    return f"{usage.total - usage.output:,} in{read} · {usage.output:,} out · {cost}"


def _arguments(raw: str) -> str:
    """A tool's input in one line; each value is shortened, so that all of them are seen."""
    try:
        values = json.loads(raw or "{}")
    except ValueError:
        values = raw
    if not isinstance(values, dict):
        return one_line(str(values), ARGUMENTS)
    share = max(30, ARGUMENTS // max(1, len(values)))
    written = {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}
    return ", ".join(f"{name}={one_line(value, share)}" for name, value in written.items())
