"""What a campaign with a model tells of it: cost in status, transcripts as a command."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from campaigns import a_campaign
from command import call
from messages_server import KEY, MessagesServer
from served_model import Planner, billed

from core.agents import registry
from core.agents.llm import prices
from core.campaign.campaign import Campaign

MODEL = "claude-sonnet-5"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[MessagesServer]:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    server = MessagesServer(Planner((-0.1, 0.05, -0.2)))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def night(tmp_path: Path, server: MessagesServer) -> Path:
    """Three experiments of a model, two of them kept."""
    with a_campaign(tmp_path / "night") as campaign:
        campaign.run(registry.make("api", endpoint=server.url, model=MODEL), experiments=3)
    return tmp_path / "night"


def test_status_tells_what_the_model_cost_an_experiment_and_a_kept_gain(night: Path, server: MessagesServer) -> None:
    price = prices.known(MODEL)
    assert price is not None
    usages = billed(server)
    usd = float(sum(price.cost(usage) for usage in usages))
    told = call("status", "--dir", night, "--json").json["model"]
    assert told["usd"] == usd > 0
    assert told["usd_per_experiment"] == usd / 3
    assert told["usd_per_keep"] == usd / 2
    assert (told["requests"], told["failed"], told["unpriced"]) == (len(server.billed), 0, 0)
    assert told["tokens"] == sum(usage.total for usage in usages)
    shown = call("status", "--dir", night).out
    assert f"${usd:.2f}, ${usd / 3:.4f} an experiment, ${usd / 2:.2f} a kept gain" in " ".join(shown.split())


def test_a_campaign_that_asked_no_model_has_no_costs(tmp_path: Path) -> None:
    a_campaign(tmp_path / "night").close()
    assert call("status", "--dir", tmp_path / "night", "--json").json["model"] is None
    answer = call("transcript", "--dir", tmp_path / "night", code=2)
    assert "no model has worked on" in answer.err and "--agent api" in answer.err


def test_a_transcript_shows_what_the_model_did(night: Path) -> None:
    newest = call("transcript", "--dir", night).out
    assert newest.startswith("# Experiment 3\n")
    second = call("transcript", 2, "--dir", night, "--json").json
    assert second["experiment"] == 2 and Path(second["path"]).read_text(encoding="utf-8") == second["text"]
    for part in ("read_trainer", "edit", "propose", "I read the trainer."):
        assert part in second["text"]
    answer = call("transcript", 9, "--dir", night, code=2)
    assert answer.err == "autoresearch: no model worked on experiment 9; there are transcripts of 1 to 3\n"


@pytest.mark.skipif(sys.platform == "win32", reason="ends it with a signal of POSIX")
def test_following_goes_on_to_the_next_proposal_until_ctrl_c(night: Path) -> None:
    command = [sys.executable, "-P", "-m", "core.cli", "transcript", "--follow", "--dir", str(night)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    try:
        seen = process.stdout.readline()
        folder = night / ".git" / "autoresearch" / "agents" / "transcripts"
        (folder / "00004.md").write_text("# Experiment 4\nthe next one\n", encoding="utf-8")
        while b"the next one" not in seen:
            seen += process.stdout.readline()
        assert seen.startswith(b"# Experiment 3\n")
        time.sleep(0.1)
        process.send_signal(2)
        _, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 130
    assert b"interrupted" in err and b"Traceback" not in err


def test_a_replay_is_founded_like_its_source(tmp_path: Path, corpus_folder: Path, brief: list[str]) -> None:
    night, again = tmp_path / "night", tmp_path / "again"
    settings = ("--preset", "numpy", "--budget", 1, "--corpus", f"folder:{corpus_folder}", "--set", "SMOOTHING=0.25")
    call("init", night, *settings, *brief)
    call("run", night, "--experiments", 1, "--json")
    rows = [
        json.loads(line)
        for line in call("run", again, "--agent", "replay", "--replay", night, "--json").out.splitlines()
    ]
    with Campaign.open(night) as source, Campaign.open(again) as campaign:
        assert campaign.preset == source.preset
        first, second = source.experiments(), campaign.experiments()
        assert [campaign.trainer_text(one.commit) for one in second] == [
            source.trainer_text(one.commit) for one in first
        ]
    assert [row["hypothesis"] for row in rows] == [one.hypothesis for one in first]
    answer = call("run", again, "--agent", "replay", "--replay", again, code=2)
    assert "can't be its own replay" in answer.err
