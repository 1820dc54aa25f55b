"""The kubelet's HTTPS server, as far as the API server asks it for logs and for commands in containers."""

import base64
import hashlib
import json
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from distill_api.constants import Path as PodPath
from testcluster import ControlPlane
from tests.support.apiserver.api import Api

ADDRESS = "127.0.0.1"
_MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class KubeletServer:
    """Logs that the test writes, by pod; commands run on this machine, with `volume` in place of the checkpoints."""

    def __init__(self, volume: Path) -> None:
        self.volume = volume
        self.logs: dict[str, list[str]] = {}
        """Lines with their times, as a runtime writes them."""
        self.followed = threading.Event()
        """While it is not set, a log that is followed does not end."""
        self.commands: list[str] = []
        """Pods in which a command was run."""


@contextmanager
def kubelet_server(plane: ControlPlane, api: Api, nodes: tuple[str, ...], volume: Path) -> Iterator[KubeletServer]:
    """A server that the API server asks about the pods of these nodes."""
    kubelet = KubeletServer(volume)
    pair = plane.authority.issue("kubelet-serving", "system:node:test", group="system:nodes", hosts=[ADDRESS])
    server = ThreadingHTTPServer((ADDRESS, 0), _handler(kubelet))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for node in nodes:
        status = {
            "addresses": [{"type": "InternalIP", "address": ADDRESS}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": server.server_address[1]}},
        }
        api.patch("Node", "", node, {"status": status}, "status")
    try:
        yield kubelet
    finally:
        kubelet.followed.set()
        server.shutdown()
        server.server_close()


def _handler(kubelet: KubeletServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            verb, _, pod, _ = parts.path.strip("/").split("/")
            query = parse_qs(parts.query)
            if verb == "containerLogs":
                self._log(pod, query)
            else:
                self._exec(pod, query["command"])

        def _log(self, pod: str, query: dict[str, list[str]]) -> None:
            lines = kubelet.logs.get(pod, [])
            if "tailLines" in query:
                lines = lines[-int(query["tailLines"][0]) :]
            if query.get("timestamps") != ["true"]:
                lines = [line.partition(" ")[2] for line in lines]
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write("".join(f"{line}\n" for line in lines).encode())
            self.wfile.flush()
            if query.get("follow") == ["true"]:
                kubelet.followed.wait(20)
            self.close_connection = True

        def _exec(self, pod: str, command: list[str]) -> None:
            kubelet.commands.append(pod)
            key = hashlib.sha1((self.headers["Sec-WebSocket-Key"] + _MAGIC).encode()).digest()
            self.send_response(101)
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "Upgrade")
            self.send_header("Sec-WebSocket-Accept", base64.b64encode(key).decode())
            self.send_header("Sec-WebSocket-Protocol", "v4.channel.k8s.io")
            self.end_headers()
            for frame in _run(command, kubelet.volume):
                self.wfile.write(frame)
                self.wfile.flush()
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Requests are not printed."""

    return Handler


def _run(command: list[str], volume: Path) -> Iterator[bytes]:
    """The frames of a command's output, its end, and the end of the connection."""
    here = [part.replace(PodPath.CHECKPOINTS, str(volume)) for part in command]
    done = subprocess.run([sys.executable if here[0] == "python" else here[0], *here[1:]], capture_output=True)
    for start in range(0, len(done.stdout), 30000):
        yield _frame(1, done.stdout[start : start + 30000])
    if done.stderr:
        yield _frame(2, done.stderr)
    failure = {"status": "Failure", "details": {"causes": [{"message": str(done.returncode)}]}}
    yield _frame(3, json.dumps({"status": "Success"} if done.returncode == 0 else failure).encode())
    yield b"\x88\x00"


def _frame(channel: int, data: bytes) -> bytes:
    body = bytes([channel]) + data
    return b"\x82" + (bytes([126]) + len(body).to_bytes(2, "big") if len(body) > 125 else bytes([len(body)])) + body
