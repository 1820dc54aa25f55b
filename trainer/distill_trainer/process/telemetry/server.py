"""The HTTP server of a rank: /metrics for Prometheus, /status for the operator, /healthz for probes."""

import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

log = logging.getLogger(__name__)

Endpoint = tuple[str, Callable[[], bytes]]
"""Content type, and a function that returns the body."""


class StatusServer:
    """Serves endpoints from daemon threads until `close` or the end of the process."""

    def __init__(self, port: int, endpoints: Mapping[str, Endpoint], host: str = "") -> None:
        """Listen on `port` of `host`, by default of all addresses, or on a free port if it is in use.

        `endpoints`: by path.
        """
        server, handler = _LocalServer if host else _Server, _handler(dict(endpoints))
        try:
            self._server = server((host, port), handler)
        except OSError as error:
            self._server = server((host, 0), handler)
            log.warning("cannot listen on port %d (%s); using port %d instead", port, error.strerror, self.port)
        # A forked data loader worker would keep the port open after this rank has died.
        os.register_at_fork(after_in_child=self._server.socket.close)
        threading.Thread(target=self._server.serve_forever, name="status-server", daemon=True).start()

    @property
    def port(self) -> int:
        """The port that the server listens on."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


class _LocalServer(ThreadingHTTPServer):
    daemon_threads = True


class _Server(_LocalServer):
    address_family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


def serve(port: int, metrics: Callable[[], bytes], status: Callable[[], bytes], host: str = "") -> StatusServer:
    """Serve a rank's pages, until the process ends."""
    server = StatusServer(
        port,
        {
            "/metrics": ("text/plain; version=0.0.4; charset=utf-8", metrics),
            "/status": ("application/json", status),
            "/healthz": ("text/plain", lambda: b"ok\n"),
        },
        host,
    )
    log.info("serving metrics and status on port %d", server.port)
    return server


def _handler(endpoints: dict[str, Endpoint]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            endpoint = endpoints.get(self.path.partition("?")[0])
            if endpoint is None:
                self.send_error(404, f"not found; use {', '.join(sorted(endpoints))}")
                return
            content_type, body_of = endpoint
            body = body_of()
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            log.debug(format, *args)

    return Handler
