"""The documented schema of --json. `command.call` holds the output of every test's command against it, too."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import json_outputs
import pytest
from campaigns import ScriptedAgent, a_campaign, trainer
from command import call

from core.cli.app import app
from core.cli.json_types import OUTPUTS
from core.cli.render.terminal import SCHEMA_VERSION
from scripts import json_page

pytest.importorskip("jsonschema", reason="jsonschema is not installed: make setup")


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A campaign whose second experiment was kept and whose third crashed; its trials are scripted."""
    root = tmp_path_factory.mktemp("campaigns") / "night"
    with a_campaign(root) as campaign:
        campaign.run(ScriptedAgent([trainer(2.1), trainer(1.9), trainer(1.8, "crash")]), experiments=3)
    return root


def test_page_and_schema_are_what_the_types_say(capsys: pytest.CaptureFixture[str]) -> None:
    assert json_page.main(["--check"]) == 0, capsys.readouterr().out


def test_every_command_with_json_is_documented() -> None:
    commands = {
        (one.name or "") or one.callback.__name__
        for one in app.registered_commands
        if one.callback is not None and "as_json" in inspect.signature(one.callback).parameters
    }
    assert commands == {key.split()[0] for key in OUTPUTS}
    assert all(f"| `{key} --json` |" in json_page.PAGE.read_text(encoding="utf-8") for key in OUTPUTS)


@pytest.mark.parametrize(
    "arguments", [["status"], ["log"], ["show", "2"], ["show", "3"], ["wait", "1"], ["audit", "--quick"]], ids=" ".join
)
def test_what_is_printed_has_the_version_first_and_all_its_keys(night: Path, arguments: list[str]) -> None:
    word, *others = arguments
    printed = call(word, night, *others, "--json").json  # held against the schema there
    for one in printed if isinstance(printed, list) else [printed]:
        assert next(iter(one.items())) == ("schema_version", SCHEMA_VERSION)


def test_doctors_report_is_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backends.names", lambda: ["numpy"])  # each takes a process of its own
    report = call("doctor", "--preset", "numpy", "--json").json
    assert report["schema_version"] == SCHEMA_VERSION and report["ready"]


def test_a_key_that_is_missing_new_or_of_another_type_is_noticed(night: Path) -> None:
    status = call("status", night, "--json").json
    for wrong in (
        {key: value for key, value in status.items() if key != "kept"},
        {key: value for key, value in status.items() if key != "schema_version"},
        {**status, "new": 1},
        {**status, "kept": "1"},
        {**status, "schema_version": SCHEMA_VERSION + 1},
    ):
        with pytest.raises(AssertionError, match=r"json_types\.py"):
            json_outputs.check(["status"], json.dumps(wrong))
    experiments = call("log", night, "--json").json
    del experiments[0]["trials"][0]["steps"]
    with pytest.raises(AssertionError, match="'steps' is a required property"):
        json_outputs.check(["log"], json.dumps(experiments))
