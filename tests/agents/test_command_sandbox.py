"""What a coding agent's command can't reach, tried from inside one; and that it reaches what it needs."""

from __future__ import annotations

import dataclasses
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_scripts import Night, an_agent

import presets
from core.agents.command import command_line
from core.agents.command.environment import command_environment
from core.campaign.campaign import Campaign
from core.sandbox import tier
from core.system.files import cache_root

needs_a_tier = pytest.mark.skipif(not tier.available().enforced, reason=f"no sandbox here: {tier.available().why}")
linux = pytest.mark.skipif(sys.platform != "linux", reason="the escapes are Linux's")

PROBE = """
import os, socket
def refused(what, action):
    try:
        got = action()
    except OSError:
        return
    print(f"ESCAPED {what}: {got!r:.80}")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "scripts").mkdir()
    return tmp_path / "scripts"


@pytest.fixture
def night(tmp_path: Path) -> Iterator[Night]:
    night = Night(tmp_path / "campaign")
    with night.campaign:
        yield night


@pytest.fixture
def listening() -> Iterator[int]:
    """The port of a server that says hello to whoever connects."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"hello")

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]


def probing(*actions: str) -> str:
    tries = "\n".join(f"refused({action!r}, lambda: {action})" for action in actions)
    return f"{PROBE}{tries}\nprint('PROBED')\nedit(1.5); say('x')"


@needs_a_tier
@linux
def test_it_reads_and_writes_nothing_but_what_it_is_given(night: Night, folder: Path, tmp_path: Path) -> None:
    root, secret, cached = night.campaign.root, tmp_path / "secret", cache_root() / "corpora" / "text"
    cached.parent.mkdir(parents=True, exist_ok=True)
    for path in (secret, cached):
        path.write_text("text")
    code = probing(
        f"open({str(root / '.git' / 'autoresearch' / 'ledger.db')!r}, 'rb').read(9)",
        f"open({str(root / 'train.py')!r}).read(9)",
        f"open({str(root / 'train.py')!r}, 'a')",
        f"os.listdir({str(root)!r})",
        f"open({str(secret)!r}).read()",
        f"open({str(cached)!r}).read()",
        f"os.listdir({str(Path.home())!r})",
        f"os.listdir({tempfile.gettempdir()!r})",
        "open('/etc/shadow').read()",
        "open('/proc/{}/environ'.format(os.getppid()), 'rb').read(9)",
        f"open({str(folder / 'agent.py')!r}, 'a')",
        "open('../usage.json', 'w')",
        "open('../prompt.md', 'a')",
        "open('../answers/0.txt', 'w')",
        "os.kill(os.getppid(), 0)",
    )
    night.run(an_agent(folder, code))
    assert night.campaign.experiment(1).verdict == "keep"
    assert night.printed().splitlines()[1:] == ["PROBED"]


@needs_a_tier
@linux
def test_the_probe_sees_an_escape(night: Night, folder: Path) -> None:
    night.run(an_agent(folder, probing("open('/dev/null').name")))
    assert "ESCAPED open('/dev/null').name: '/dev/null'" in night.printed()


def test_it_gets_the_variables_that_are_named_and_no_file_gets_their_values(
    night: Night, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_KEY", "sk-very-secret-1")
    monkeypatch.setenv("OTHER_KEY", "sk-very-secret-2")
    code = """
import os
print("KEYS", os.environ["AGENT_KEY"] == "sk-very-secret-" + "1", os.environ.get("OTHER_KEY"))
print("leaked:", os.environ["AGENT_KEY"])
edit(1.5); say("with " + os.environ["AGENT_KEY"])
"""
    night.run(an_agent(folder, code, command_env=("AGENT_KEY",)))
    assert "KEYS True None\nleaked: [AGENT_KEY]" in night.printed()
    assert night.campaign.experiment(1).hypothesis == "with [AGENT_KEY]"
    night.campaign.close()
    for path in night.campaign.root.rglob("*"):
        assert not path.is_file() or b"sk-very-secret" not in path.read_bytes(), path


def test_a_trainer_that_holds_a_secret_is_not_taken(
    night: Night, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from core.agents.base import Unavailable

    monkeypatch.setenv("AGENT_KEY", "sk-very-secret-1")
    code = "import os\nopen('train.py', 'a').write(f'K = {os.environ[\"AGENT_KEY\"]!r}'); say('x')"
    with pytest.raises(Unavailable, match=r"wrote the value of AGENT_KEY into train.py"):
        night.run(an_agent(folder, code, command_env=("AGENT_KEY",)))


def test_its_home_is_private_and_empty(night: Night, folder: Path) -> None:
    code = """
import os, tempfile
home = os.path.expanduser("~")
print("HOME", os.listdir(home), os.listdir(tempfile.gettempdir())); open(home + "/mine", "w").write("x")
edit(1.5); say("x")
"""
    night.run(an_agent(folder, code))
    night.run(an_agent(folder, code.replace("1.5", "1.25")))
    assert [line for line in night.printed().splitlines() if line.startswith("HOME")] == ["HOME [] []"] * 2


@pytest.mark.parametrize(("name", "where"), [("agent-home", "~/login"), (".agent", "~/.agent/login")])
def test_a_home_that_is_named_is_kept(night: Night, folder: Path, tmp_path: Path, name: str, where: str) -> None:
    home = tmp_path / name
    home.mkdir()
    (home / "login").write_text("token 1")
    code = f"""
import os
path = os.path.expanduser({where!r})
print("LOGIN", open(path).read()); open(path, "w").write("token 2")
edit(1.5); say("x")
"""
    night.run(an_agent(folder, code, command_home=home))
    assert "LOGIN token 1" in night.printed()
    assert (home / "login").read_text() == "token 2"


@needs_a_tier
def test_what_it_may_read_beyond_that_is_named(night: Night, folder: Path, tmp_path: Path) -> None:
    for name in ("shown", "hidden"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    code = probing(f"open({str(tmp_path / 'shown' / 'file')!r}).read()", f"open({str(tmp_path / 'hidden' / 'file')!r})")
    night.run(an_agent(folder, code, command_read=(tmp_path / "shown",)))
    assert [line.rpartition(": ")[2] for line in night.printed().splitlines()[1:]] == ["'shown'", "PROBED"]


def test_it_has_a_network_and_a_trial_has_none(
    tmp_path: Path, folder: Path, corpus_folder: Path, listening: int
) -> None:
    """A real campaign: the command edits a real trainer, which tries in vain what the command could."""
    preset = dataclasses.replace(presets.load("numpy"), corpus=f"folder:{corpus_folder}")
    ask = f"socket.create_connection(('127.0.0.1', {listening}), 5).recv(5)"
    code = f"""
import socket, sys
print("HEARD", {ask})
path = pathlib.Path("train.py")
number = len(list(pathlib.Path("history").glob("0*")))
tried = "import socket; {ask}" if number == 1 else "pass"
text = path.read_text()
assert "def main():" in text
path.write_text(text.replace("def main():", "def main():\\n    " + tried))
say(f"edit {{number}}")
"""
    with Campaign.create(tmp_path / "c", preset, program="Lower it.\n", tag="real") as campaign:
        campaign.run(an_agent(folder, code), experiments=2)
        first, second = campaign.experiments(1)
        log = campaign.root / ".git" / "autoresearch" / "agents" / "command" / "000001.txt"
    assert "HEARD b'hello'" in log.read_text()
    assert (first.hypothesis, first.agent, second.hypothesis) == ("edit 1", "command", "edit 2")
    assert second.val_bpb is not None
    if tier.available().enforced:
        assert first.verdict == "crash" and "a trial reaches no network" in first.reason
    assert (folder / "agent.py").exists()


@needs_a_tier
@linux
def test_sockets_by_path_stay_closed(night: Night, folder: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        connect = f"socket.socket(socket.AF_UNIX).connect({str(tmp_path / 's')!r})"
        code = f"import socket\na, b = socket.socketpair(); a.send(b'x'); assert b.recv(1) == b'x'\n{probing(connect)}"
        night.run(an_agent(folder, code))
    assert night.printed().splitlines()[1:] == ["PROBED"]


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right of their own on Windows")
def test_a_programs_own_folder_is_found_through_its_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def program(path: Path, text: str = "#!/bin/sh\n") -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    node = program(tmp_path / "node" / "bin" / "node")
    package = tmp_path / "lib" / "node_modules"
    npm = program(package / "@one" / "agent" / "cli.js", "#!/usr/bin/env node\n")
    own = program(tmp_path / "share" / "agent" / "versions" / "2.1" / "agent")
    tool = program(tmp_path / "tools" / "aider" / "bin" / "aider", f"#!{tmp_path}/tools/aider/bin/python\n")
    program(tmp_path / "python" / "bin" / "python3.12", "\x7fELF")
    (tool.parent / "python").symlink_to(tmp_path / "python" / "bin" / "python3.12")
    (tmp_path / "tools" / "aider" / "pyvenv.cfg").touch()
    shim = program(tmp_path / ".pyenv" / "shims" / "agent")
    lone = program(tmp_path / "scripts" / "lone.sh")
    links = tmp_path / "bin"
    links.mkdir()
    for name, target in (("npm", npm), ("own", own), ("tool", tool)):
        (links / name).symlink_to(target)
    monkeypatch.setenv("PATH", f"{links}:{node.parent}:/usr/bin:/bin")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)

    def found(name: str) -> set[str]:
        paths = command_line.parse(name).reads
        return {path.relative_to(tmp_path).as_posix() for path in paths if path.is_dir() and tmp_path in path.parents}

    assert found("npm") == {"lib/node_modules", "node"}
    assert found("own") == {"share/agent/versions/2.1"}
    assert found("tool") == {"tools/aider", "python"}
    assert found(str(shim)) == {".pyenv"}
    assert found(str(lone)) == set()
    (tmp_path / ".local" / "bin").mkdir(parents=True)
    program(tmp_path / ".local" / "bin" / "mine")
    assert found(str(tmp_path / ".local" / "bin" / "mine")) == set()


@needs_a_tier
def test_a_folder_of_programs_that_it_can_not_read_hides_no_other(
    night: Night, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hiding = tmp_path / "hiding"
    hiding.mkdir()
    (hiding / "sh").write_text("#!/bin/false\n")
    (hiding / "sh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{hiding}:/usr/bin:/bin")
    code = """
import os, shutil, subprocess
print("PATH", os.environ["PATH"]); subprocess.run(["sh", "-c", "echo SHELL"], check=True)
subprocess.run(["python", "-c", "import numpy; print('NUMPY')"], check=True)
edit(1.5); say("x")
"""
    night.run(an_agent(folder, code))
    assert night.campaign.experiment(1).verdict == "keep"
    assert f"PATH /usr/bin:/bin:{Path(sys.executable).parent}\n" in night.printed()
    assert "SHELL" in night.printed() and "NUMPY" in night.printed()


def test_words_are_filled_once_and_no_shell_sees_them() -> None:
    command = command_line.parse(f"{sys.executable} -c 'a b' x={{prompt}} {{prompt_file}}")
    text = "$(id); {prompt_file} 'x'"
    assert command.filled(text, Path("/p"))[1:] == ["-c", "a b", f"x={text}", "/p"]
    assert not command.on_stdin and command_line.parse(sys.executable).on_stdin


def test_values_are_masked_longest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONG", "secret-value-and-more")
    monkeypatch.setenv("SHORT", "secret-value")
    monkeypatch.setenv("TINY", "1")
    environment = command_environment(command_line.parse(sys.executable), ("SHORT", "LONG", "TINY"), (), None)
    assert environment.masked("secret-value-and-more, secret-value, 1") == "[LONG], [SHORT], 1"
    assert (environment.secret_in("a secret-value"), environment.secret_in("1")) == ("SHORT", None)
