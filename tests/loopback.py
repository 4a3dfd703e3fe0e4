"""The HTTP server under those that tests script, on a port of this machine. Imported as `loopback`."""

import http.server
import sys
from typing import Any


class Server(http.server.ThreadingHTTPServer):
    """A client that goes away in the middle is none of its errors; whatever else goes wrong in a handler is printed."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)
