"""From a run's settings to an answer, and from its records to the same answer."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import completions_server
import messages_server
import pytest
from completions_server import Completion

from core.agents.llm.archive import spent
from core.agents.llm.base import LimitReached, Request
from core.agents.llm.connect import recording, server
from core.agents.llm.providers import ModelSettings
from core.records import UserError

ASKED = Request(
    system="You train models.",
    tools=(),
    messages=({"role": "user", "content": [{"type": "text", "text": "go"}]},),
    max_tokens=2000,
)


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANTHROPIC_AUTH_TOKEN", "OPENAI_API_KEY", "ANTHROPIC_BASE_URL", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ANTHROPIC_API_KEY", messages_server.KEY)


@pytest.fixture
def claude() -> Iterator[ModelSettings]:
    spoken = f"my key is {messages_server.KEY} " + "word " * 800
    with messages_server.serving(lambda request: [messages_server.text(spoken)]) as one:
        yield ModelSettings(endpoint=one.url, max_usd=Decimal("0.06"))


def test_a_run_and_its_replay(tmp_path: Path, claude: ModelSettings) -> None:
    assert spent(tmp_path) is None
    asks = server(tmp_path, claude)
    replies = [asks.ask(ASKED, number) for number in (1, 2)]
    asks.close()
    total = spent(tmp_path)
    assert total is not None and (total.requests, total.unpriced) == (2, 0)
    used = replies[0].usage
    assert total.usd == 2 * (4 * used.input + 20 * used.output) / Decimal(1_000_000)

    got: list[Any] = []
    again = recording(tmp_path, lambda *difference: got.append(difference))
    assert [again.ask(ASKED, number).stop_reason for number in (1, 2)] == ["end_turn"] * 2
    again.close()
    assert got == []
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {"exchanges.db", "00001.md", "00002.md"}
    assert not any(messages_server.KEY.encode() in path.read_bytes() for path in files)
    assert "my key is [key]" in (tmp_path / "transcripts" / "00001.md").read_text(encoding="utf-8")


def test_a_limit_is_of_one_run(tmp_path: Path, claude: ModelSettings) -> None:
    """Each run may spend $0.06: the first ends within it, and the second starts from nothing."""
    for run in (1, 2):
        asks = server(tmp_path, claude)
        with pytest.raises(LimitReached):
            for _ in range(1000):
                asks.ask(ASKED, run)
        asks.close()
    total = spent(tmp_path)
    assert total is not None and Decimal("0.06") < total.usd <= Decimal("0.12")


def test_a_model_on_this_machine(tmp_path: Path) -> None:
    """It needs no key, has no price, and this one counts nothing."""
    with completions_server.serving(lambda request: Completion(text="word " * 400, usage=False)) as one:
        asks = server(tmp_path, ModelSettings(provider="openai", model="qwen4", endpoint=one.url, max_tokens=8000))
        with pytest.raises(LimitReached, match="--max-tokens 8,000"):
            for _ in range(20):
                asks.ask(ASKED, 1)
        asks.close()
        assert 4 < len(one.requests) < 12
        with pytest.raises(UserError, match='no price of it is known: add --price "IN OUT"'):
            server(tmp_path, ModelSettings(provider="openai", model="qwen4", endpoint=one.url, max_usd=Decimal(1)))
        free = ModelSettings(provider="openai", model="qwen4", endpoint=one.url, max_usd=Decimal(1), price="0 0")
        asks = server(tmp_path, free)
        assert asks.ask(ASKED, 2).stop_reason == "end_turn"
        asks.close()


def test_what_is_missing_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    with pytest.raises(UserError, match="ANTHROPIC_API_KEY"):
        server(tmp_path, ModelSettings())
    with pytest.raises(UserError, match="there is none"):
        recording(tmp_path)
    assert list(tmp_path.iterdir()) == []
