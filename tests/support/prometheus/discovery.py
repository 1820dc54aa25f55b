"""Finds scrape targets in a cluster as Prometheus' own Kubernetes discovery does.

Debian builds Prometheus without that discovery. So it is done here: pods and endpoint slices are listed, and targets
are written with the same labels (__meta_kubernetes_…) to files that Prometheus watches.
"""

import json
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import urllib3
from kubernetes import client, config

Manifest = Mapping[str, Any]
TargetGroup = dict[str, Any]

PODS = "pods.json"
ENDPOINTS = "endpoints.json"


def sanitized(label: str) -> str:
    """A Kubernetes label's name as a part of a Prometheus label's name."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", label)


def pod_targets(pods: Iterable[Manifest]) -> Iterator[TargetGroup]:
    """One target for each declared port of each container of each pod that has an address."""
    for pod in pods:
        address = pod["status"].get("podIP")
        if not address:
            continue
        of_pod = {
            "namespace": pod["metadata"]["namespace"],
            "pod_name": pod["metadata"]["name"],
            "pod_phase": pod["status"].get("phase", ""),
            **_labels("pod", pod["metadata"].get("labels", {})),
        }
        for container in pod["spec"]["containers"]:
            for port in container.get("ports", []):
                of_port = {"pod_container_name": container["name"], "pod_container_port_name": port.get("name", "")}
                yield _group(address, port["containerPort"], of_pod | of_port)


def endpoint_targets(slices: Iterable[Manifest], services: Iterable[Manifest]) -> Iterator[TargetGroup]:
    """One target for each port of each address behind a service."""
    by_name = {(service["metadata"]["namespace"], service["metadata"]["name"]): service for service in services}
    for slice_ in slices:
        namespace = slice_["metadata"]["namespace"]
        name = slice_["metadata"].get("labels", {}).get("kubernetes.io/service-name", "")
        if (namespace, name) not in by_name:
            continue
        of_service = {
            "namespace": namespace,
            "service_name": name,
            **_labels("service", by_name[namespace, name]["metadata"].get("labels", {})),
        }
        for endpoint in slice_.get("endpoints") or []:
            of_pod = {"pod_name": (endpoint.get("targetRef") or {}).get("name", "")}
            for address in endpoint["addresses"]:
                for port in slice_.get("ports") or []:
                    of_port = {"endpointslice_port_name": port.get("name") or ""}
                    yield _group(address, port["port"], of_service | of_pod | of_port)


class Discovery:
    """Keeps the target files in `directory` true, by asking the API server of `kubeconfig` every second.

    Both files are there when the constructor returns. `error` is what went wrong at the last attempt, if anything did:
    an API server that is away for a while is asked again, and the targets known last are kept meanwhile.
    """

    def __init__(self, directory: Path, kubeconfig: Path, *, interval_seconds: float = 1) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.error: str | None = None
        api = config.new_client_from_config(str(kubeconfig))
        self._core, self._discovery = client.CoreV1Api(api), client.DiscoveryV1Api(api)
        self._interval = interval_seconds
        self._stopped = threading.Event()
        self._refresh()
        self._thread = threading.Thread(target=self._run, name="discovery", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Leave the files as they are."""
        self._stopped.set()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        while not self._stopped.wait(self._interval):
            try:
                self._refresh()
                self.error = None
            except (client.ApiException, urllib3.exceptions.HTTPError) as error:
                self.error = str(error)

    def _refresh(self) -> None:
        pods = _items(self._core.list_pod_for_all_namespaces)
        services = _items(self._core.list_service_for_all_namespaces)
        slices = _items(self._discovery.list_endpoint_slice_for_all_namespaces)
        _replace(self.directory / PODS, list(pod_targets(pods)))
        _replace(self.directory / ENDPOINTS, list(endpoint_targets(slices, services)))


def _items(list_all: Any) -> list[Manifest]:
    answer = list_all(_preload_content=False, _request_timeout=10)
    return list(json.loads(answer.data)["items"])


def _replace(path: Path, groups: list[TargetGroup]) -> None:
    """Only a change is written: each write makes Prometheus read the file again."""
    text = json.dumps(groups)
    if path.exists() and path.read_text() == text:
        return
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.rename(path)


def _labels(kind: str, labels: Mapping[str, str]) -> dict[str, str]:
    values = {f"{kind}_label_{sanitized(key)}": value for key, value in labels.items()}
    return values | {f"{kind}_labelpresent_{sanitized(key)}": "true" for key in labels}


def _group(address: str, port: int, meta: Mapping[str, str]) -> TargetGroup:
    host = f"[{address}]" if ":" in address else address
    return {
        "targets": [f"{host}:{port}"],
        "labels": {f"__meta_kubernetes_{name}": value for name, value in meta.items()},
    }
