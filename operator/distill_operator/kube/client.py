"""The requests to the API server that the operator makes. The whole process shares one ApiClient."""

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client.api_client import ApiClient

from distill_api.constants import API_VERSION, FIELD_MANAGER, KIND, PLURAL
from distill_operator.kube import answers
from distill_operator.kube.answers import ApiError
from distill_operator.kube.clock import ServerClock
from distill_operator.kube.objects import Object

REQUEST_SECONDS = 20.0
"""Timeout of a request; one that hangs would block its job's pass for ever."""

RESOURCES = {
    KIND: f"/apis/{API_VERSION}/namespaces/{{namespace}}/{PLURAL}",
    "Job": "/apis/batch/v1/namespaces/{namespace}/jobs",
    "Pod": "/api/v1/namespaces/{namespace}/pods",
    "Service": "/api/v1/namespaces/{namespace}/services",
    "PersistentVolumeClaim": "/api/v1/namespaces/{namespace}/persistentvolumeclaims",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies",
    "CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "Lease": "/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases",
    "Event": "/api/v1/namespaces/{namespace}/events",
}


STALE_SECONDS = 60.0
"""How long a newer list is remembered: an etcd that was restored from a backup counts from an earlier version again."""


class NotLeadingError(Exception):
    """The process must not write: another operator may lead."""


class Kube:
    """Requests on objects of one namespace at a time."""

    def __init__(self, client: ApiClient, may_write: Callable[[], bool] | None = None) -> None:
        self._client: Any = client  # the package's annotations are incomplete
        self.clock = ServerClock()
        self._may_write = may_write
        self._newest: dict[str, tuple[int, float]] = {}
        """By kind: the newest version that a list had, and the monotonic time of its answer."""

    def guarded(self, may_write: Callable[[], bool]) -> "Kube":
        """The same connection; a request that writes raises NotLeadingError unless `may_write` at that moment."""
        kube = Kube(self._client, may_write)
        kube.clock, kube._newest = self.clock, self._newest
        return kube

    @classmethod
    async def connect(cls) -> "Kube":
        """Use the pod's service account, or else the kubeconfig that KUBECONFIG names."""
        loader: Any = config
        try:
            loader.load_incluster_config()
        except config.ConfigException:
            await loader.load_kube_config()
        client = ApiClient()
        client.user_agent = FIELD_MANAGER
        return cls(client)

    async def serves_distilljobs(self) -> bool:
        """Whether the CRD is installed. Raises ApiError."""
        try:
            resources = (await self._request("GET", f"/apis/{API_VERSION}")).get("resources") or ()
        except ApiError as error:
            if error.code == 404:
                return False
            raise
        return any(resource["name"] == PLURAL for resource in resources)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """The object, or None if it does not exist. Raises ApiError."""
        try:
            return await self._request("GET", self._path(kind, namespace, name))
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    async def list(self, kind: str, namespace: str, **selectors: str) -> list[Object]:
        """The objects that labelSelector and fieldSelector select. Raises ApiError, also for a list that is older than
        one that had arrived before this was asked for: pods that it lacks would be taken for gone.
        """
        known, at = self._newest.get(kind, (0, 0.0))
        path = self._path(kind, namespace)
        answer = await self._request("GET", path, selectors)
        text = str((answer.get("metadata") or {}).get("resourceVersion", ""))
        version, now = int(text) if text.isdecimal() else known, time.monotonic()
        if version < known and now - at < STALE_SECONDS:
            raise answers.unanswered("Stale", f"GET {path}: the list has version {version}, an earlier one had {known}")
        if version >= self._newest.get(kind, (0, 0.0))[0] or now - at >= STALE_SECONDS:
            self._newest[kind] = (version, now)
        return list(answer.get("items") or ())

    async def create(self, kind: str, namespace: str, manifest: Object) -> Object:
        """The created object. Raises ApiError, with code 409 if the name is taken."""
        query = {"fieldManager": FIELD_MANAGER}
        return await self._request("POST", self._path(kind, namespace), query, manifest)

    async def try_create(self, kind: str, namespace: str, manifest: Object) -> Object:
        """The object that `create` would store; nothing is stored. Raises ApiError as `create` does."""
        query = {"fieldManager": FIELD_MANAGER, "dryRun": "All"}
        return await self._request("POST", self._path(kind, namespace), query, manifest)

    async def replace_status(self, kind: str, obj: Object) -> Object:
        """Store the status of `obj`. Raises ApiError, with code 409 if the object was changed after it was read."""
        return await self.replace(kind, obj, "/status")

    async def replace(self, kind: str, obj: Object, subresource: str = "") -> Object:
        """Store `obj`. Raises ApiError, with code 409 if the object was changed after it was read."""
        metadata = obj["metadata"]
        path = self._path(kind, metadata["namespace"], metadata["name"]) + subresource
        return await self._request("PUT", path, {"fieldManager": FIELD_MANAGER}, obj)

    async def label_next_pods(self, namespace: str, name: str, uid: str, labels: dict[str, str]) -> None:
        """Set labels of this Job and of the pods that it starts from now on. Raises ApiError: 422 unless the Job is
        suspended, 404 or 409 if it is gone or was replaced.
        """
        patch: Object = {
            "metadata": {"uid": uid, "labels": labels},
            "spec": {"template": {"metadata": {"labels": labels}}},
        }
        path = self._path("Job", namespace, name)
        await self._request("PATCH", path, {"fieldManager": FIELD_MANAGER}, patch, "application/merge-patch+json")

    async def delete(
        self, kind: str, namespace: str, name: str, uid: str, *, foreground: bool, at_once: bool = False
    ) -> None:
        """Delete exactly this object; a no-op if it is gone or has another UID. Raises ApiError."""
        options: Object = {
            "preconditions": {"uid": uid},
            "propagationPolicy": "Foreground" if foreground else "Background",
        }
        if at_once:
            options["gracePeriodSeconds"] = 0
        try:
            await self._request("DELETE", self._path(kind, namespace, name), {}, options)
        except ApiError as error:
            if error.code not in (404, 409):
                raise

    @staticmethod
    def _path(kind: str, namespace: str, name: str = "") -> str:
        collection = RESOURCES[kind].format(namespace=quote(namespace, safe=""))
        return f"{collection}/{quote(name, safe='')}" if name else collection

    async def _request(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
    ) -> Object:
        if method != "GET" and self._may_write is not None and not self._may_write():
            raise NotLeadingError(f"{method} {path} was not sent: this operator does not lead")
        serialized = await self._client.param_serialize(
            method,
            f"{path}?{urlencode(query)}" if query else path,
            header_params={"Accept": "application/json", "Content-Type": content_type},
            body=body,
            auth_settings=["BearerToken"],
        )
        what = f"{method} {path}"
        sent = time.monotonic()
        try:
            answer = await self._client.call_api(*serialized, _request_timeout=REQUEST_SECONDS)
            self.clock.saw(answer.response.headers.get("Date"), sent)
            return await answers.read(answer.response)
        except TimeoutError:
            raise answers.unanswered("Timeout", f"{what}: no answer within {REQUEST_SECONDS:.0f} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise answers.unanswered("Unreachable", f"{what}: {error or type(error).__name__}") from error
