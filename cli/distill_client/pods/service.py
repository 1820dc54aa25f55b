"""Which pod answers for a Service, and on which port: what a connection to the Service from outside needs."""

from __future__ import annotations

from typing import Final, NamedTuple

from distill_client.apiserver.kinds import Object, path
from distill_client.client import Client
from distill_client.errors import Forbidden, NotFound
from distill_client.pods.reader import runs

GRAFANA: Final = "app.kubernetes.io/name=grafana"
"""The label that Grafana's Helm chart gives its Service, also as a part of kube-prometheus-stack."""
_NAME_IT: Final = "name its Service with --grafana NAMESPACE/SERVICE"


class Endpoint(NamedTuple):
    """A port of a pod."""

    namespace: str
    pod: str
    port: int


def grafana(client: Client) -> Object:
    """The Service of the cluster's Grafana. Raises NotFound if there is none, and Forbidden."""
    try:
        services = client.objects("Service", None, labelSelector=GRAFANA)
    except Forbidden:
        raise Forbidden("forbidden: you cannot list Services of all namespaces, to find Grafana", _NAME_IT) from None
    serving = [service for service in services if (service["spec"].get("selector") or {})]
    serving.sort(key=lambda service: service["spec"].get("clusterIP") == "None")  # headless ones last
    if not serving:
        raise NotFound(
            f"this cluster has no Grafana: no Service has the label {GRAFANA}",
            f"{_NAME_IT}; or import charts/distill-operator/dashboards/distilljob.json into the Grafana that you have;"
            " distill status JOB -w needs none",
        )
    return serving[0]


def endpoint(client: Client, service: Object) -> Endpoint:
    """The first port of a Service, at a pod that runs. Raises NotFound."""
    namespace, name = service["metadata"]["namespace"], service["metadata"]["name"]
    selector = service["spec"].get("selector") or {}
    labels = ",".join(f"{key}={value}" for key, value in sorted(selector.items()))
    pods = client.objects("Pod", namespace, labelSelector=labels) if labels else []
    pod = next(filter(runs, pods), None)
    if pod is None:
        raise NotFound(f"no pod of Service {namespace}/{name} runs", f"kubectl -n {namespace} describe service {name}")
    wanted = service["spec"]["ports"][0]
    target = wanted.get("targetPort") or wanted["port"]
    if isinstance(target, str):
        ports = (port for container in pod["spec"]["containers"] for port in container.get("ports") or ())
        target = next((port["containerPort"] for port in ports if port.get("name") == target), wanted["port"])
    return Endpoint(namespace, pod["metadata"]["name"], int(target))


def service(client: Client, namespace: str, name: str) -> Object:
    """A Service. Raises NotFound and Forbidden."""
    return client.connection.request("GET", path("Service", namespace, name))
