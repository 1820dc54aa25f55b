"""Nodes without machines: the tests say what their kubelets would, and rank 0 is a small real HTTP server."""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from distill_api.constants import METRICS_PORT
from distill_api.pod.report import TerminationMessage, TrainerStatus
from tests.support.apiserver.api import Api, Object, Refused

GPUS = 2
RANK0_IP = f"127.{1 + os.getpid() // 256 % 200}.{os.getpid() % 256}.{{number}}"
"""Pods have loopback addresses, so that the operator's own request reaches the test's server; each run has its own."""


def timestamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Nodes:
    """Two nodes that report to be ready for as long as the block runs."""

    def __init__(self, api: Api, names: tuple[str, ...]) -> None:
        self._api, self.names = api, names
        self._silent: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> "Nodes":
        capacity = {"cpu": "8", "memory": "32Gi", "pods": "100", "nvidia.com/gpu": str(GPUS)}
        for name in self.names:
            node = {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
            }
            self._api.create(node)
            ready = {"type": "Ready", "status": "True", "reason": "Test", "lastHeartbeatTime": timestamp()}
            status = {"capacity": capacity, "allocatable": capacity, "conditions": [ready]}
            self._api.patch("Node", "", name, {"status": status}, "status")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @contextmanager
    def silence(self, name: str) -> Iterator[None]:
        """Inside, the node says nothing, as one without power; afterwards it is back."""
        self._silent.add(name)
        try:
            yield
        finally:
            self._silent.discard(name)

    def _beat(self) -> None:
        while not self._stop.wait(4):
            for name in sorted(set(self.names) - self._silent):
                ready = {"type": "Ready", "status": "True", "reason": "Test", "lastHeartbeatTime": timestamp()}
                with suppress(OSError, Refused):  # an API server that restarts; as a kubelet, it tries again
                    self._api.patch("Node", "", name, {"status": {"conditions": [ready]}}, "status")


class Kubelet:
    """What kubelets tell about pods of one namespace."""

    def __init__(self, api: Api, ns: str) -> None:
        self._api, self._ns = api, ns

    def run(self, pod: Object, ip: str) -> None:
        """The pod's container has started."""
        state = {"running": {"startedAt": timestamp()}}
        self._status(pod, "Running", state, podIP=ip, podIPs=[{"ip": ip}], startTime=timestamp())

    def wait(self, pod: Object, reason: str, message: str) -> None:
        """The pod's container cannot start."""
        self._status(pod, "Pending", {"waiting": {"reason": reason, "message": message}})

    def end(self, pod: Object, code: int, report: TerminationMessage | None = None, reason: str = "") -> None:
        """The pod's container has ended."""
        ended: dict[str, Any] = {"exitCode": code, "finishedAt": timestamp(), "startedAt": timestamp()}
        ended["reason"] = reason or ("Completed" if code == 0 else "Error")
        if report is not None:
            ended["message"] = report.to_json()
        self._status(pod, "Succeeded" if code == 0 else "Failed", {"terminated": ended})

    def remove(self, pod: Object) -> None:
        """The pod, whose deletion was asked for, is gone from its node."""
        metadata = pod["metadata"]
        self._api.delete("Pod", self._ns, metadata["name"], gracePeriodSeconds=0)

    def _status(self, pod: Object, phase: str, state: Object, **fields: Any) -> None:
        container = {
            "name": "trainer",
            "state": state,
            "image": "trainer:test",
            "imageID": "",
            "restartCount": 0,
            "ready": phase == "Running",
        }
        status = {"phase": phase, "containerStatuses": [container], **fields}
        self._api.patch("Pod", self._ns, pod["metadata"]["name"], {"status": status}, "status")


class Rank0:
    """Rank 0's /status as the operator asks for it."""

    def __init__(self, ip: str) -> None:
        self.ip = ip
        self.status: TrainerStatus | None = None
        self.asked = 0


def _listen(ip: str, handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
    """The port is the contract's, so a trainer that runs on this machine has to be waited for."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return ThreadingHTTPServer((ip, METRICS_PORT), handler)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


@contextmanager
def rank0(number: int) -> Iterator[Rank0]:
    """A server at an address of its own."""
    rank = Rank0(RANK0_IP.format(number=number))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            rank.asked += 1
            body = rank.status.model_dump_json(by_alias=True) if rank.status else json.dumps({})
            with suppress(ConnectionError):  # the operator was killed meanwhile
                self.send_response(200 if rank.status else 503)
                self.end_headers()
                self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            """Requests are counted, not printed."""

    server = _listen(rank.ip, Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield rank
    finally:
        server.shutdown()
        server.server_close()
