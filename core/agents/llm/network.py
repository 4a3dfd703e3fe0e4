"""How requests reach a server: directly on this machine, else through the proxy that the environment names."""

from __future__ import annotations

import ipaddress
import os
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from core.records import UserError

_VARIABLES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")


def is_loopback(address: str) -> bool:
    """Whether the address is on this machine."""
    host = urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def http_client(sdk: Any, address: str, **options: Any) -> Any:
    """The SDK's HTTP client for requests to `address`. UserError if a proxy is to be used and can't be.

    No proxy reaches this machine, and one that isn't asked for must not be able to fail: the SDK makes them all.
    """
    import httpx2

    if is_direct(address):
        options["transport"] = httpx2.HTTPTransport()
    try:
        return sdk.DefaultHttpxClient(**options)
    except ImportError:
        reason = (
            "a SOCKS proxy needs the Python package socksio, which is not installed: install it beside autoresearch"
        )
    except (ValueError, httpx2.InvalidURL):
        reason = "that is no address of a proxy such as http://proxy:3128 or socks5://proxy:1080"
    host = urlsplit(address).hostname
    raise UserError(f"{reason} ({proxy_variables()}); or reach {address} without a proxy: NO_PROXY={host}")


def is_direct(address: str) -> bool:
    """Whether requests to the address go through no proxy."""
    host = urlsplit(address).hostname or ""
    return is_loopback(address) or not urllib.request.getproxies() or bool(urllib.request.proxy_bypass(host))


def proxy_variables() -> str:
    """What of the environment names a proxy. The values may hold passwords and are not shown."""
    return ", ".join(name for name in _VARIABLES if os.environ.get(name)) or "the system's settings"
