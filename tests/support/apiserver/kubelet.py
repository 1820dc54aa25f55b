"""The kubelet's HTTPS server, as far as the API server asks it for logs, commands in containers, and ports of pods."""

import base64
import hashlib
import json
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO
from urllib.parse import parse_qs, urlsplit

from distill_api.constants import Path as PodPath
from testcluster import ControlPlane
from tests.support.apiserver.api import Api

ADDRESS = "127.0.0.1"
_CLOSED = b"\x88\x00"
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
        self.ports: dict[int, int] = {}
        """The port of this machine that answers for a port of every pod."""
        self.ports_of: dict[tuple[str, int], int] = {}
        """The same for a port of one pod."""


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
            verb, _, pod, *_ = parts.path.strip("/").split("/")
            query = parse_qs(parts.query)
            if verb == "containerLogs":
                self._log(pod, query)
            elif verb == "portForward":
                self._forward(pod, int(query["port"][0]))
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
            self._upgrade()
            for frame in _run(command, kubelet.volume):
                self._send(frame)
            self.close_connection = True

        def _forward(self, pod: str, port: int) -> None:
            self._upgrade()
            start = port.to_bytes(2, "little")
            self._send(_frame(0, start) + _frame(1, start))
            try:
                local = kubelet.ports_of.get((pod, port)) or kubelet.ports[port]
                answering = socket.create_connection((ADDRESS, local))
            except (KeyError, OSError):
                self._send(_frame(1, f"connection refused: port {port}".encode()) + _CLOSED)
                return
            with answering:
                back = threading.Thread(target=self._answers, args=(answering,))
                back.start()
                for data in _received(self.rfile):
                    answering.sendall(data[1:])
                with suppress(OSError):
                    answering.shutdown(socket.SHUT_RDWR)
                back.join()
            self.close_connection = True

        def _answers(self, answering: socket.socket) -> None:
            with suppress(OSError):
                while data := answering.recv(30000):
                    self._send(_frame(0, data))
                self._send(_CLOSED)

        def _upgrade(self) -> None:
            key = hashlib.sha1((self.headers["Sec-WebSocket-Key"] + _MAGIC).encode()).digest()
            self.send_response(101)
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "Upgrade")
            self.send_header("Sec-WebSocket-Accept", base64.b64encode(key).decode())
            self.send_header("Sec-WebSocket-Protocol", "v4.channel.k8s.io")
            self.end_headers()

        def _send(self, frames: bytes) -> None:
            self.wfile.write(frames)
            self.wfile.flush()

        def log_message(self, *_: object) -> None:
            """Requests are not printed."""

    return Handler


def _run(command: list[str], volume: Path) -> Iterator[bytes]:
    """The frames of a command's output, its end, and the end of the connection."""
    here = [part.replace(PodPath.CHECKPOINTS, str(volume)) for part in command]
    done = subprocess.run([sys.executable if here[0] == "python3" else here[0], *here[1:]], capture_output=True)
    for start in range(0, len(done.stdout), 30000):
        yield _frame(1, done.stdout[start : start + 30000])
    if done.stderr:
        yield _frame(2, done.stderr)
    failure = {"status": "Failure", "details": {"causes": [{"message": str(done.returncode)}]}}
    yield _frame(3, json.dumps({"status": "Success"} if done.returncode == 0 else failure).encode())
    yield _CLOSED


def _frame(channel: int, data: bytes) -> bytes:
    body = bytes([channel]) + data
    return b"\x82" + (bytes([126]) + len(body).to_bytes(2, "big") if len(body) > 125 else bytes([len(body)])) + body


def _received(stream: BinaryIO) -> Iterator[bytes]:
    """The data of a client's frames, until it closes."""
    while (head := stream.read(2)) and head[0] & 0x0F != 8:
        size = head[1] & 0x7F
        if size > 125:
            size = int.from_bytes(stream.read(2 if size == 126 else 8), "big")
        mask = stream.read(4)
        data = stream.read(size)
        yield bytes(octet ^ mask[index % 4] for index, octet in enumerate(data))
