"""Forwards a port of this machine to a port of a pod, as kubectl port-forward does."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from distill_client.apiserver.connection import Connection
from distill_client.errors import ClientError
from distill_client.pods.websocket import port_socket

LOOPBACK: Final = "127.0.0.1"
_CHUNK: Final = 65536


class Forward:
    """Connections to `port` of this machine's loopback go to the pod; `problem` is why the last one failed, if any."""

    def __init__(self, connection: Connection, namespace: str, pod: str, remote: int, local: int) -> None:
        self.problem: ClientError | None = None
        self._connection, self._namespace, self._pod, self._remote = connection, namespace, pod, remote
        try:
            self._listener = socket.create_server((LOOPBACK, local))
        except OSError as error:
            raise ClientError(f"cannot listen on port {local}: {error.strerror}", "use another --port") from None
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="port-forward", daemon=True).start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{LOOPBACK}:{self.port}"

    def close(self) -> None:
        """Accept no further connections; those that are open end with the process."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(accepted,), daemon=True).start()

    def _serve(self, accepted: socket.socket) -> None:
        with accepted:
            try:
                forward = port_socket(self._connection, self._namespace, self._pod, self._remote)
            except ClientError as error:
                self.problem = error
                return
            remote = forward.socket(self._remote)
            answers = threading.Thread(target=_pump, args=(remote, accepted), daemon=True)
            answers.start()
            _pump(accepted, remote)
            answers.join()
            remote.close()
            if refused := forward.error(self._remote):
                self.problem = ClientError(f"port {self._remote} of pod {self._pod} does not answer: {refused}")


@contextmanager
def forwarded(connection: Connection, namespace: str, pod: str, remote: int, *, local: int = 0) -> Iterator[Forward]:
    """Forward while the block runs. `local`: a port of this machine; 0 takes a free one. Raises ClientError."""
    forward = Forward(connection, namespace, pod, remote, local)
    try:
        yield forward
    finally:
        forward.close()


def _pump(source: Any, target: Any) -> None:
    """Copy until the source ends or either is closed, then end the other one's reading."""
    with suppress(OSError, ValueError):
        while data := source.recv(_CHUNK):
            target.sendall(data)
    with suppress(OSError, ValueError):
        target.shutdown(socket.SHUT_RDWR)
