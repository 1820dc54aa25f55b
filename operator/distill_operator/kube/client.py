"""The requests to the API server that the operator makes. The whole process shares one ApiClient."""

import json
from typing import Any
from urllib.parse import quote, urlencode

from kubernetes.aio import config
from kubernetes.aio.client.api_client import ApiClient

from distill_api.constants import API_VERSION, FIELD_MANAGER, KIND, PLURAL

Object = dict[str, Any]

REQUEST_SECONDS = 20.0
"""Timeout of a request; one that hangs would block its job's pass for ever."""

RESOURCES = {
    KIND: f"/apis/{API_VERSION}/namespaces/{{namespace}}/{PLURAL}",
    "Job": "/apis/batch/v1/namespaces/{namespace}/jobs",
    "Pod": "/api/v1/namespaces/{namespace}/pods",
    "Service": "/api/v1/namespaces/{namespace}/services",
    "PersistentVolumeClaim": "/api/v1/namespaces/{namespace}/persistentvolumeclaims",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies",
    "Event": "/api/v1/namespaces/{namespace}/events",
}


class ApiError(Exception):
    """The API server refused a request."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code = code
        self.reason = reason
        self.message = message


class Kube:
    """Requests on objects of one namespace at a time."""

    def __init__(self, client: ApiClient) -> None:
        self._client: Any = client  # the package's annotations are incomplete

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
        """The objects that labelSelector and fieldSelector select. Raises ApiError."""
        items = (await self._request("GET", self._path(kind, namespace), selectors)).get("items")
        return list(items or ())

    async def create(self, kind: str, namespace: str, manifest: Object) -> Object:
        """The created object. Raises ApiError, with code 409 if the name is taken."""
        query = {"fieldManager": FIELD_MANAGER}
        return await self._request("POST", self._path(kind, namespace), query, manifest)

    async def replace_status(self, kind: str, obj: Object) -> Object:
        """Store the status of `obj`. Raises ApiError, with code 409 if the object was changed after it was read."""
        metadata = obj["metadata"]
        path = self._path(kind, metadata["namespace"], metadata["name"]) + "/status"
        return await self._request("PUT", path, {"fieldManager": FIELD_MANAGER}, obj)

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
        self, method: str, path: str, query: dict[str, str] | None = None, body: Object | None = None
    ) -> Object:
        serialized = await self._client.param_serialize(
            method,
            f"{path}?{urlencode(query)}" if query else path,
            header_params={"Accept": "application/json", "Content-Type": "application/json"},
            body=body,
            auth_settings=["BearerToken"],
        )
        answer = await self._client.call_api(*serialized, _request_timeout=REQUEST_SECONDS)
        content = json.loads(await answer.read() or b"{}")
        if answer.status >= 400:
            raise ApiError(answer.status, content.get("reason", ""), content.get("message", ""))
        return dict(content)
