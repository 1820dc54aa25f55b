"""Finds what the chart has installed."""

from __future__ import annotations

from distill_api.constants import Component, Label
from distill_client.apiserver.kinds import Object
from distill_client.client import Client

OPERATORS = f"{Label.COMPONENT}={Component.OPERATOR},app.kubernetes.io/part-of=distill-operator"
_VERSION = "app.kubernetes.io/version"


def operators(client: Client) -> list[Object]:
    """The operator's pods in all namespaces. Raises Forbidden."""
    return client.objects("Pod", None, labelSelector=OPERATORS)


def operator_version(pod: Object) -> str:
    """The version in the pod's labels, which the chart writes."""
    return str((pod["metadata"].get("labels") or {}).get(_VERSION) or "unknown")


def setting(pod: Object, name: str) -> str | None:
    """An environment variable of an operator's pod."""
    for container in pod["spec"].get("containers") or ():
        for entry in container.get("env") or ():
            if entry.get("name") == name:
                return str(entry.get("value") or "")
    return None
