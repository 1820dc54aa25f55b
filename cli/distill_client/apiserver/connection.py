"""Requests to the API server of a kubeconfig, through the kubernetes package: it has TLS, logins and exec plugins."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any, Final
from urllib.parse import urlencode

from distill_client.apiserver.kinds import Object
from distill_client.apiserver.kubeconfig import LOGIN, load
from distill_client.errors import ClientError, Conflict, Forbidden, NotFound, NotInstalled, Refused, Unreachable

REQUEST_SECONDS: Final = 20.0
INSTALL: Final = "install the operator: helm install distill-operator charts/distill-operator (see the README)"
_NOT_NOW: Final = frozenset({429, 502, 503, 504})
"""Answers of an API server that starts, has too much to do, or has lost etcd; or of what is before it."""


class Connection:
    """Requests as the user of one context; `namespace` is the default of the context."""

    def __init__(
        self,
        *,
        kubeconfig: str | os.PathLike[str] | None = None,
        context: str | None = None,
        namespace: str | None = None,
        timeout: float = REQUEST_SECONDS,
    ) -> None:
        """Read the kubeconfig as kubectl does: the argument, else KUBECONFIG, else ~/.kube/config, else the pod's own
        service account. Nothing is sent yet. Raises Unreachable.
        """
        from kubernetes import client  # half a second, which `distill --help` must not take

        configuration: Any = client.Configuration()
        configuration.retries = 0
        self.context, found = load(configuration, kubeconfig, context)
        self.namespace: str = namespace or found
        self.server: str = str(configuration.host)
        self.timeout = timeout
        self.api: Any = client.ApiClient(configuration)

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        content: str = "application/json",
    ) -> Object:
        """The JSON object that the API server answers with. Raises ClientError."""
        with closing(self._send(method, path, query, body, content, self.timeout)) as response:
            try:
                return dict(json.loads(response.data or b"{}"))
            except ValueError:
                raise Unreachable(
                    f"{self.server} does not answer as a Kubernetes API server does", "check the kubeconfig's server"
                ) from None

    def lines(self, path: str, query: Mapping[str, str], idle: float | None = None) -> Iterator[str]:
        """The lines of a streamed answer, as they arrive; without one for `idle` seconds the stream ends.

        Raises ClientError if it cannot be opened. A connection that breaks ends the stream.
        """
        from urllib3.exceptions import HTTPError

        with closing(self._send("GET", path, query, None, "application/json", (self.timeout, idle))) as response:
            rest = b""
            try:
                for chunk in response.stream(amt=None, decode_content=False):
                    *whole, rest = (rest + chunk).split(b"\n")
                    yield from (line.decode(errors="replace") for line in whole)
            except (HTTPError, OSError):
                pass  # the reader asks again, or is satisfied
            if rest:
                yield rest.decode(errors="replace")

    def text(self, path: str) -> str:
        """The body of an answer that is no JSON, such as /readyz. Raises ClientError."""
        with closing(self._send("GET", path, None, None, "application/json", self.timeout)) as response:
            return str((response.data or b"").decode(errors="replace"))

    def _send(
        self, method: str, path: str, query: Mapping[str, str] | None, body: object, content: str, timeout: Any
    ) -> Any:
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        url = f"{path}?{urlencode(query)}" if query else path
        headers = {"Accept": "application/json, */*", "Content-Type": content}
        try:
            serialized = self.api.param_serialize(
                method, url, header_params=headers, body=body, auth_settings=["BearerToken"]
            )
            response = self.api.call_api(*serialized, _request_timeout=timeout).response
        except (ApiException, HTTPError, OSError) as error:
            raise Unreachable(
                f"no cluster: {self.server} does not answer ({_short(error)})",
                f'check that context "{self.context}" is the one you want, and that the cluster runs',
            ) from None
        if response.status >= 400:
            with closing(response):
                raise _failure(response.status, response.data or b"", path)
        return response


def _short(error: Exception) -> str:
    """The innermost reason of a failed connection, without addresses of Python objects."""
    reason = getattr(error, "reason", None) or error
    text = " ".join(str(reason).split())
    return text.rpartition(">: ")[2] or type(error).__name__


def _failure(code: int, body: bytes, path: str) -> ClientError:
    """The error for an answer of the API server, from its Status."""
    try:
        status = dict(json.loads(body))
    except ValueError:
        status = {}
    message = " ".join(str(status.get("message") or body.decode(errors="replace")).split())[:2000]
    details = status.get("details") or {}
    if code in _NOT_NOW:
        return Unreachable(f"the API server cannot answer now: {message or code}", "try again in a moment")
    if code == 401:
        return Unreachable("the cluster does not accept your login", LOGIN)
    if code == 403 and status.get("reason", "Forbidden") == "Forbidden" and not details.get("causes"):
        return _forbidden(message)
    if code == 404 and not details.get("name"):
        if "distilljob.dev" in path:
            return NotInstalled("this cluster has no DistillJobs: the CRD is not installed", INSTALL)
        return NotFound(f"{path} does not exist on this cluster")
    if code == 404:
        return NotFound(message)
    if code == 409:
        return Conflict(message)
    causes = tuple(map(_cause, details.get("causes") or ()))
    return Refused("; ".join(causes) or message or f"the API server answers {code}", "", causes)


def _cause(cause: Mapping[str, str]) -> str:
    """One broken rule. A rule of the CRD says in its own words where it is broken."""
    field, text = str(cause.get("field") or ""), " ".join(str(cause.get("message") or "").split())
    for kind in ('Invalid value: "object": ', "Invalid value: "):
        text = text.removeprefix(kind)
    return text if field in ("", "<nil>") or text.startswith(field) else f"{field}: {text}"


def _forbidden(message: str) -> ClientError:
    if "cannot" not in message:  # an admission policy or a quota rather than missing rights
        return Refused(message)
    need = message.partition("cannot ")[2] or message
    return Forbidden(f"forbidden: you cannot {need}", "ask an admin for the role; distill doctor lists what is missing")
