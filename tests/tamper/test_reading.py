"""Trainers that train on the text they will be scored on, wherever they look for it: none is found, nothing gained."""

from __future__ import annotations

import socketserver
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import trainer_text

from core.sandbox import tier

Run = Callable[..., Any]

pytestmark = pytest.mark.skipif(not tier.available().enforced, reason=f"no sandbox here: {tier.available().why}")

# Counts the pairs of every file below the places that can be read, a hundred times over.
LEARN = """
import os
def learn(counts, places):
    found = 0
    for place in places:
        for parent, _, names in os.walk(place):
            for name in names:
                try:
                    data = np.fromfile(os.path.join(parent, name), np.uint8)
                except OSError:
                    continue
                found += len(data)
                np.add.at(counts, (data[:-1], data[1:]), 100.0)
    print(f"found {found} bytes")
"""


def cheat(*places: Path) -> str:
    learning = f"exec({LEARN!r}, globals()); learn(counts, {[str(place) for place in places]!r}); "
    return trainer_text(after=learning + 'trial.finish({"counts": counts})')


@pytest.mark.parametrize("where", ["corpus", "cache", "home and temporary folder"])
def test_text_on_disk_is_found_by_no_trial(
    run: Run, where: str, cache: Path, corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    (home / "texts").mkdir(parents=True)
    for path in corpus_folder.rglob("*.txt"):
        (home / "texts" / path.name).write_bytes(path.read_bytes())
    places = {"corpus": [corpus_folder], "cache": [cache], "home and temporary folder": [home, tmp_path]}[where]
    honest = run(trainer_text()).trial
    tried = run(cheat(*places)).trial
    assert (tried.verdict, tried.val_bpb) == ("scored", honest.val_bpb)
    if where == "corpus":
        # It would have paid: the same trainer without a sandbox.
        monkeypatch.setattr(tier, "_off", "--no-sandbox")
        gained = run(cheat(*places)).trial
        assert gained.val_bpb < honest.val_bpb - 0.1
        assert gained.sandbox == "none"


# Counts the pairs of all that a server of this machine sends, a hundred times over.
ASK = """
import socket
def learn(counts, port):
    try:
        with socket.create_connection(("127.0.0.1", port), 20) as end:
            data = np.frombuffer(end.makefile("rb").read(), np.uint8)
    except OSError as error:
        print("asked in vain:", error)
        return
    np.add.at(counts, (data[:-1], data[1:]), 100.0)
"""


def test_a_server_of_this_machine_teaches_no_trial(
    run: Run, corpus_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = b"".join(path.read_bytes() for path in corpus_folder.rglob("*.txt"))

    class Texts(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(text)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Texts) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        learning = f"exec({ASK!r}, globals()); learn(counts, {server.server_address[1]}); "
        asking = trainer_text(after=learning + 'trial.finish({"counts": counts})')
        honest, tried = run(trainer_text()).trial, run(asking).trial
        assert (tried.verdict, tried.val_bpb) == ("scored", honest.val_bpb)
        # It would have paid: the same trainer without a sandbox.
        monkeypatch.setattr(tier, "_off", "--no-sandbox")
        assert run(asking).trial.val_bpb < honest.val_bpb - 0.1
        server.shutdown()


def test_what_one_trial_leaves_the_next_does_not_find(run: Run, tmp_path: Path) -> None:
    """Each tries every place that it can write, and looks whether the one before has been there."""
    leave = """
import os, tempfile
note = "note-of-an-earlier-trial"
places = [os.getcwd(), tempfile.gettempdir(), "/dev/shm", "/tmp", "/var/tmp", os.path.expanduser("~")]
places += [os.environ.get(name, "") for name in ("XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR")]
found = [place for place in places if place and os.path.exists(os.path.join(place, note))]
for place in places:
    try:
        open(os.path.join(place, note), "x").close()
    except OSError:
        pass
assert not found, found
"""
    for _ in range(2):
        assert run(trainer_text(before=f"exec({leave!r}, {{}})")).trial.verdict == "scored"
    assert sys.platform == "win32" or not any(
        Path(place, "note-of-an-earlier-trial").exists() for place in ("/dev/shm", "/tmp", "/var/tmp", Path.home())
    )
