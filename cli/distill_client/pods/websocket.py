"""Web sockets to pods through the API server: commands (exec) and connections to ports (portforward)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlencode

from distill_client.apiserver.connection import Connection
from distill_client.apiserver.kinds import path
from distill_client.errors import Forbidden, NotFound, Unreachable

_V4: Final = "v4.channel.k8s.io"
"""The protocol that every API server and kubelet has, for both."""


def exec_socket(connection: Connection, namespace: str, pod: str, container: str, command: Sequence[str]) -> Any:
    """A kubernetes.stream WSClient with the output of a command. Raises ClientError."""
    from kubernetes.stream import ws_client

    wanted = [("container", container), ("stdout", "true"), ("stderr", "true"), *(("command", c) for c in command)]
    return _open(ws_client.websocket_call, connection, (namespace, pod, "exec"), wanted, capture_all=False, binary=True)


def port_socket(connection: Connection, namespace: str, pod: str, port: int) -> Any:
    """A kubernetes.stream PortForward: one connection to a port of the pod, as its loopback. Raises ClientError."""
    from kubernetes.stream import ws_client

    return _open(ws_client.portforward_call, connection, (namespace, pod, "portforward"), [("ports", str(port))])


def _open(
    call: Any, connection: Connection, where: tuple[str, str, str], wanted: list[tuple[str, str]], **options: Any
) -> Any:
    from kubernetes.client.exceptions import ApiException

    namespace, pod, sub = where
    url = f"{path('Pod', namespace, pod, sub)}?{urlencode(wanted)}"
    _, url, headers, *_ = connection.api.param_serialize("GET", url, header_params={}, auth_settings=["BearerToken"])
    headers["sec-websocket-protocol"] = _V4
    try:
        return call(connection.api.configuration, "GET", url, headers=headers, _preload_content=False, **options)
    except ApiException as error:
        text = " ".join(str(error.reason).split())[:300]
        if "403" in text:
            raise Forbidden(f"forbidden: you cannot use {sub} of pod {pod}", f"ask an admin for pods/{sub}") from None
        if "404" in text:
            raise NotFound(f"pod {pod} is gone") from None
        raise Unreachable(f"cannot reach pod {pod}: {text}", "try again") from None
