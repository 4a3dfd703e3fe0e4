"""What each kind of server needs from the environment, in one line."""

import importlib.util
from functools import partial
from pathlib import Path

import pytest

from core.agents.llm import providers
from core.agents.llm.providers import ModelSettings
from core.records import UserError
from core.system import install

VARIABLES = (
    "ANTHROPIC_API_KEY ANTHROPIC_AUTH_TOKEN OPENAI_API_KEY ANTHROPIC_BASE_URL OPENAI_BASE_URL ANTHROPIC_PROFILE"
).split()


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_without_a_key_one_line_says_what_is_missing_and_what_works() -> None:
    said = providers.missing("anthropic")
    assert "ANTHROPIC_API_KEY" in said and "--agent search" in said and "--provider openai" in said
    assert "\n" not in said and len(said) < 300
    assert "OPENAI_API_KEY" in providers.missing("openai")
    with pytest.raises(UserError, match="ANTHROPIC_API_KEY"):
        providers.connect(ModelSettings())


@pytest.mark.parametrize("name", ["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"])
def test_either_variable_will_do(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "secret-1\n")
    assert providers.missing("anthropic") == ""
    assert providers.secrets() == ("secret-1",)
    monkeypatch.setenv(name, " ")
    assert name in providers.missing("anthropic")
    monkeypatch.setenv(name, "schlüssel")
    with pytest.raises(UserError, match=f"{name} holds characters"):
        providers.missing("anthropic")


def test_a_profile_of_the_sdk_is_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "default.json").write_text("{}", encoding="utf-8")
    monkeypatch.setenv("ANTHROPIC_CONFIG_DIR", str(tmp_path))
    assert "ANTHROPIC_API_KEY" in providers.missing("anthropic")


@pytest.mark.parametrize("address", ["http://localhost:11434/v1", "http://127.0.0.1:8000/v1", "http://[::1]:8080/v1"])
def test_a_server_on_this_machine_needs_no_key(address: str) -> None:
    assert providers.missing("openai", address) == ""
    assert providers.missing("anthropic", address) != ""
    with pytest.raises(UserError, match="--model"):
        providers.connect(ModelSettings(provider="openai", endpoint=address))
    provider = providers.connect(ModelSettings(provider="openai", endpoint=address, model="qwen4"))
    assert (provider.name, provider.model) == ("openai", "qwen4")
    provider.close()


@pytest.mark.parametrize(
    "address", ["http://localhost.example.com/v1", "https://10.0.0.7/v1", "http://127.0.0.1.nip.io"]
)
def test_another_machine_needs_one(address: str) -> None:
    assert "any text where it asks for none" in providers.missing("openai", address)


def test_a_missing_package_is_told_with_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert install.command("api") in providers.missing("anthropic")
    assert install.command("openai") in providers.missing("openai")


@pytest.mark.parametrize("option", [True, False])
@pytest.mark.parametrize(
    "address",
    [
        "http://me:hunter22@127.0.0.1:8000/v1",
        "https://hunter22@example.com",
        "me:hunter22@example.com",
        "http://[hunter22@::1",
        "http://127.0.0.1:8000/v1?key=hunter22",
    ],
)
def test_an_address_with_a_password_is_refused_and_not_shown(
    address: str, option: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for provider, variable in (("anthropic", "ANTHROPIC_BASE_URL"), ("openai", "OPENAI_BASE_URL")):
        if not option:
            monkeypatch.setenv(variable, address)
        endpoint = address if option else None
        settings = ModelSettings(provider=provider, endpoint=endpoint)
        for ask in (partial(providers.missing, provider, endpoint), partial(providers.connect, settings)):
            with pytest.raises(UserError, match="no user name, password or query") as refused:
                ask()
            assert "hunter22" not in str(refused.value) and (variable in str(refused.value)) != option


@pytest.mark.parametrize("address", ["http://[::1", "http://localhost:eleven", "http://localhost:0/v1"])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(UserError, match="an endpoint is an address"):
        providers.missing("openai", address)


def test_what_makes_no_sense_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret-2")
    with pytest.raises(UserError, match="there are anthropic, openai"):
        providers.missing("mistral")
    with pytest.raises(UserError, match="an endpoint is an address"):
        providers.missing("openai", "localhost:11434")
    with pytest.raises(UserError, match="no thinking budget"):
        providers.connect(ModelSettings(provider="openai", model="gpt", thinking_budget=4000))
