"""The API server through plain HTTPS: what the tests read and write, as dictionaries."""

import base64
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import yaml

T = TypeVar("T")
Object = dict[str, Any]

PATHS = {
    "Namespace": "/api/v1/namespaces",
    "Node": "/api/v1/nodes",
    "Pod": "/api/v1/namespaces/{ns}/pods",
    "Service": "/api/v1/namespaces/{ns}/services",
    "Event": "/api/v1/namespaces/{ns}/events",
    "PersistentVolumeClaim": "/api/v1/namespaces/{ns}/persistentvolumeclaims",
    "PersistentVolume": "/api/v1/persistentvolumes",
    "ResourceQuota": "/api/v1/namespaces/{ns}/resourcequotas",
    "ServiceAccount": "/api/v1/namespaces/{ns}/serviceaccounts",
    "Job": "/apis/batch/v1/namespaces/{ns}/jobs",
    "Lease": "/apis/coordination.k8s.io/v1/namespaces/{ns}/leases",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{ns}/networkpolicies",
    "PriorityClass": "/apis/scheduling.k8s.io/v1/priorityclasses",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "DistillJob": "/apis/distilljob.dev/v1alpha1/namespaces/{ns}/distilljobs",
}


class Refused(Exception):
    """The API server's answer to a request that it refuses."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message = code, message


class Api:
    """Requests with the client certificate of a kubeconfig."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self.server = cluster["server"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._context = ssl.create_default_context(cadata=authority)
        pair = kubeconfig.with_suffix(".client.pem")
        pair.touch(mode=0o600)
        pair.write_bytes(b"".join(base64.b64decode(user[f"client-{part}-data"]) for part in ("certificate", "key")))
        self._context.load_cert_chain(pair)

    def request(
        self, method: str, path: str, body: object = None, content: str = "application/json", **query: str
    ) -> Object:
        url = f"{self.server}{path}" + (f"?{urlencode(query)}" if query else "")
        data = json.dumps(body).encode() if body is not None else None
        asked = urllib.request.Request(url, data, {"Content-Type": content}, method=method)
        try:
            with urllib.request.urlopen(asked, context=self._context, timeout=20) as answer:
                return dict(json.loads(answer.read()))
        except urllib.error.HTTPError as error:
            raise Refused(error.code, json.loads(error.read()).get("message", "")) from None

    def path(self, kind: str, ns: str, name: str = "", sub: str = "") -> str:
        return "/".join(part for part in (PATHS[kind].format(ns=ns), name, sub) if part)

    def create(self, obj: Object, ns: str = "", **query: str) -> Object:
        return self.request("POST", self.path(obj["kind"], ns), obj, **query)

    def get(self, kind: str, ns: str, name: str) -> Object | None:
        try:
            return self.request("GET", self.path(kind, ns, name))
        except Refused as refused:
            if refused.code == 404:
                return None
            raise

    def list(self, kind: str, ns: str = "", **query: str) -> list[Object]:
        return list(self.request("GET", self.path(kind, ns), **query)["items"])

    def patch(self, kind: str, ns: str, name: str, change: Object, sub: str = "") -> Object:
        return self.request("PATCH", self.path(kind, ns, name, sub), change, "application/merge-patch+json")

    def delete(self, kind: str, ns: str, name: str, **options: Any) -> None:
        try:
            self.request("DELETE", self.path(kind, ns, name), options or None)
        except Refused as refused:
            if refused.code != 404:
                raise


def wait_for(what: Callable[[], T | bool | None], seconds: float = 15, why: Callable[[], object] = lambda: "") -> T:
    """The first true value of `what`; AssertionError with `why` after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = what()
        if value:
            return value  # type: ignore[return-value]
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s in vain: {why()}")
        time.sleep(0.1)
