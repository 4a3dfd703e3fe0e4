"""Proxies that the environment names: none reaches this machine, and one that can't be used is one sentence."""

import contextlib
import http.server
import socket
import socketserver
import sys
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import completions_server
import pytest
from completions_server import Completion
from loopback import Server

from core.agents.llm import network
from core.agents.llm.base import Outage, Request
from core.agents.llm.network import is_loopback
from core.agents.llm.providers import ModelSettings, connect
from core.records import UserError

ASKED = Request(
    system="", tools=(), messages=({"role": "user", "content": [{"type": "text", "text": "go"}]},), max_tokens=99
)
AWAY = "http://models.example/v1"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*network._VARIABLES, "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789")


def reply(endpoint: str) -> str:
    """What a model there answers."""
    provider = connect(ModelSettings(provider="openai", model="qwen4", endpoint=endpoint, timeout=5.0))
    try:
        return str(provider.reply(ASKED, lambda delta: None).content[0]["text"])
    finally:
        provider.close()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:1"),
        ("all_proxy", "socks4://127.0.0.1:1"),
        ("HTTP_PROXY", "http://127.0.0.1:1"),
        ("HTTPS_PROXY", "localhost:port"),
        ("HTTPS_PROXY", " "),
        ("NO_PROXY", "::1%eth0, a://b:c"),
    ],
)
def test_no_proxy_reaches_this_machine(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with completions_server.serving(lambda request: Completion(text="fine")) as one:
        assert reply(one.url) == "fine"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("HTTPS_PROXY", "ftp://me:secret@proxy", "no address of a proxy"),
        ("ALL_PROXY", "socks4://me:secret@proxy:1", "no address of a proxy"),
        ("https_proxy", "me:secret", "no address of a proxy"),
        ("ALL_PROXY", "socks5://me:secret@proxy:1", "a SOCKS proxy needs the Python package socksio"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_one_sentence(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv(name, value)
    with pytest.raises(
        UserError, match=rf"{said}.* \({name}\); or .* without a proxy: NO_PROXY=models.example$"
    ) as raised:
        reply(AWAY)
    assert "secret" not in str(raised.value)
    monkeypatch.setenv("NO_PROXY", "models.example")
    with pytest.raises(Outage, match=rf"^no connection to {AWAY}: "):
        reply(AWAY)


class _Socks(socketserver.BaseRequestHandler):
    """SOCKS 5 without a login; whatever host is asked for is the server at `to`. https://www.rfc-editor.org/rfc/rfc1928"""

    to: tuple[str, int]
    hosts: list[str]

    def handle(self) -> None:
        client: socket.socket = self.request
        client.recv(2 + client.recv(2, socket.MSG_PEEK)[1])
        client.sendall(b"\x05\x00")
        length = client.recv(5)[4]
        self.hosts.append(client.recv(length + 2)[:-2].decode())
        client.sendall(b"\x05\x00\x00\x01" + bytes(6))
        with socket.create_connection(self.to) as server:
            back = threading.Thread(target=_pump, args=(server, client))
            back.start()
            _pump(client, server)
            back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def test_a_socks_proxy_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with completions_server.serving(lambda request: Completion(text="far away")) as one:
        _Socks.to, _Socks.hosts = ("127.0.0.1", int(urlsplit(one.url).port or 0)), []
        with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Socks) as proxy:
            threading.Thread(target=proxy.serve_forever, args=(0.01,)).start()
            monkeypatch.setenv("ALL_PROXY", f"socks5://127.0.0.1:{proxy.server_address[1]}")
            try:
                assert reply(f"http://models.example{urlsplit(one.url).path}") == "far away"
            finally:
                proxy.shutdown()
    assert _Socks.hosts == ["models.example"]


class _Proxy(http.server.BaseHTTPRequestHandler):
    """Refuses to do its work."""

    def do_POST(self) -> None:
        self.send_error(407)

    def log_message(self, *ignored: Any) -> None:
        pass


@pytest.fixture
def proxy() -> Iterator[str]:
    server = Server(("127.0.0.1", 0), _Proxy)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://me:secret@127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_proxy_that_fails_is_named(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://me:secret@127.0.0.1:1")
    with pytest.raises(
        Outage, match=rf"^no connection to {AWAY}, through the proxy of HTTP_PROXY: Connection refused$"
    ):
        reply(AWAY)
    monkeypatch.setenv("HTTP_PROXY", proxy)
    with pytest.raises(UserError, match=r"\(407\)"):
        reply(AWAY)


@pytest.mark.parametrize(
    ("address", "here"),
    [("http://127.0.0.1:1/v1", True), ("http://[::1]/v1", True), ("http://ollama.localhost/v1", True), (AWAY, False)],
)
def test_what_is_on_this_machine(address: str, here: bool) -> None:
    assert is_loopback(address) is here
