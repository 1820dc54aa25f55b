"""The API server through plain HTTPS: what the tests read and write, as dictionaries."""

import base64
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import yaml

from tests.support.machine.python import ROOT

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
        self.context = ssl.create_default_context(cadata=authority)
        pair = kubeconfig.with_suffix(".client.pem")
        pair.touch(mode=0o600)
        pair.write_bytes(b"".join(base64.b64decode(user[f"client-{part}-data"]) for part in ("certificate", "key")))
        self.context.load_cert_chain(pair)

    def request(
        self, method: str, path: str, body: object = None, content: str = "application/json", **query: str
    ) -> Object:
        url = f"{self.server}{path}" + (f"?{urlencode(query)}" if query else "")
        data = json.dumps(body).encode() if body is not None else None
        asked = urllib.request.Request(url, data, {"Content-Type": content}, method=method)
        try:
            with urllib.request.urlopen(asked, context=self.context, timeout=20) as answer:
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

    def watch(self, kind: str, ns: str, since: str, seconds: int) -> Iterator[Object]:
        """The events after this resourceVersion, bookmarks among them, for so long."""
        asked = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": since,
            "timeoutSeconds": str(seconds),
        }
        url = f"{self.server}{self.path(kind, ns)}?{urlencode(asked)}"
        with urllib.request.urlopen(url, context=self.context, timeout=seconds + 10) as lines:
            yield from map(json.loads, lines)

    def patch(self, kind: str, ns: str, name: str, change: Object, sub: str = "") -> Object:
        return self.request("PATCH", self.path(kind, ns, name, sub), change, "application/merge-patch+json")

    def delete(self, kind: str, ns: str, name: str, **options: Any) -> None:
        try:
            self.request("DELETE", self.path(kind, ns, name), options or None)
        except Refused as refused:
            if refused.code != 404:
                raise


def make_namespace(api: Api, name: str, **labels: str) -> None:
    """Make a namespace, and wait for its ServiceAccount: without one the API server refuses every pod."""
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    wait_for(lambda: api.get("ServiceAccount", name, "default"))


def install_crd(api: Api) -> None:
    """Create the CRD, and wait until jobs can be listed."""
    crd = yaml.safe_load((ROOT / "crds" / "distilljob.yaml").read_text())
    name = api.create(crd)["metadata"]["name"]

    def established() -> bool:
        status = (api.get("CustomResourceDefinition", "", name) or {}).get("status") or {}
        return any(c["type"] == "Established" and c["status"] == "True" for c in status.get("conditions") or ())

    wait_for(established)
    wait_for(lambda: answers(api))


def answers(api: Api) -> bool:
    """Whether DistillJobs are served; for a moment after each change of the CRD they are not."""
    try:
        return isinstance(api.list("DistillJob", "default"), list)
    except Exception as error:
        if "initializing" in str(error) or "404" in str(error):
            return False
        raise


COLLECTED_WITHIN = 60.0
"""Seconds to wait for Kubernetes' garbage collector, which looks for new CRDs every 30 s."""


def wait_for(what: Callable[[], T | bool | None], seconds: float = 15, why: Callable[[], object] = lambda: "") -> T:
    """The first true value of `what`; AssertionError with `why` after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = what()
        if value:
            return value  # type: ignore[return-value]
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s for nothing: {why()}")
        time.sleep(0.1)
