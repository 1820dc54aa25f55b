"""Paths of the kinds that the client reads and writes."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from distill_api.constants import API_VERSION, KIND, PLURAL

Object = dict[str, Any]
"""An object as the API server sends it."""

_NAMESPACED: Final[Mapping[str, str]] = {
    KIND: f"/apis/{API_VERSION}/{PLURAL}",
    "Pod": "/api/v1/pods",
    "Event": "/api/v1/events",
    "Service": "/api/v1/services",
    "PersistentVolumeClaim": "/api/v1/persistentvolumeclaims",
    "ResourceQuota": "/api/v1/resourcequotas",
    "Deployment": "/apis/apps/v1/deployments",
    "Lease": "/apis/coordination.k8s.io/v1/leases",
    "PodMonitor": "/apis/monitoring.coreos.com/v1/podmonitors",
}
_CLUSTER: Final[Mapping[str, str]] = {
    "Namespace": "/api/v1/namespaces",
    "Node": "/api/v1/nodes",
    "StorageClass": "/apis/storage.k8s.io/v1/storageclasses",
    "CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "SelfSubjectAccessReview": "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
}


def path(kind: str, namespace: str | None, name: str = "", sub: str = "") -> str:
    """The path of a kind in one namespace, or in all if `namespace` is None; or of one object, or its subresource."""
    if kind in _CLUSTER:
        base = _CLUSTER[kind]
    else:
        group, _, plural = _NAMESPACED[kind].rpartition("/")
        base = (
            f"{group}/namespaces/{quote(namespace, safe='')}/{plural}" if namespace is not None else f"{group}/{plural}"
        )
    return "/".join(part for part in (base, quote(name, safe=""), sub) if part)
