"""What Prometheus Operator makes of a PodMonitor and a ServiceMonitor, as far as the chart's monitors use it.

Prometheus Operator itself is not to be had where the tests run, but its translation is simple: selectors become rules
that keep targets, some labels get names, and the monitor's own relabelings come last.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.support.prometheus.discovery import ENDPOINTS, PODS, sanitized

Manifest = Mapping[str, Any]
ScrapeConfig = dict[str, Any]


def scrape_configs(monitor: Manifest, targets: Path) -> list[ScrapeConfig]:
    """One scrape config for each endpoint of a PodMonitor or ServiceMonitor; `targets` is a Discovery's directory.

    Raises KeyError for another kind and ValueError for a field that is not translated here.
    """
    file, endpoints = {
        "PodMonitor": (PODS, "podMetricsEndpoints"),
        "ServiceMonitor": (ENDPOINTS, "endpoints"),
    }[monitor["kind"]]
    return [
        scrape_config(monitor, endpoint, index) | {"file_sd_configs": [{"files": [str(targets / file)]}]}
        for index, endpoint in enumerate(monitor["spec"][endpoints])
    ]


def scrape_config(monitor: Manifest, endpoint: Manifest, index: int) -> ScrapeConfig:
    """How one endpoint's targets are chosen, labelled and scraped; where they come from is the caller's affair."""
    unknown = endpoint.keys() - {"port", "path", "interval", "honorLabels", "relabelings"}
    if unknown:
        raise ValueError(f"{monitor['kind']} endpoint {index}: no translation for {sorted(unknown)}")
    name = f"{monitor['kind']}/{monitor['metadata']['namespace']}/{monitor['metadata']['name']}/{index}"
    rules = [*_rules(monitor, endpoint), *(_snake_case(rule) for rule in endpoint.get("relabelings", []))]
    return {
        "job_name": name,
        "metrics_path": endpoint.get("path", "/metrics"),
        "honor_labels": endpoint.get("honorLabels", False),
        "relabel_configs": rules,
    }


def _rules(monitor: Manifest, endpoint: Manifest) -> Iterator[dict[str, Any]]:
    """The rules that come before the monitor's own."""
    pods = monitor["kind"] == "PodMonitor"
    if pods:  # filterRunning is on unless it is switched off
        yield {
            "action": "drop",
            "source_labels": ["__meta_kubernetes_pod_phase"],
            "regex": "(Failed|Succeeded)",
        }
    namespaces = monitor["spec"].get("namespaceSelector", {})
    if not namespaces.get("any"):
        names = namespaces.get("matchNames", [monitor["metadata"]["namespace"]])
        yield {"action": "keep", "source_labels": ["__meta_kubernetes_namespace"], "regex": "|".join(names)}
    yield from _selection(monitor["spec"]["selector"], "pod" if pods else "service")
    if port := endpoint.get("port"):
        source = "pod_container_port_name" if pods else "endpointslice_port_name"
        yield {"action": "keep", "source_labels": [f"__meta_kubernetes_{source}"], "regex": port}
    yield {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"}
    yield {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"}
    yield {"source_labels": ["__meta_kubernetes_pod_container_name"], "target_label": "container"}
    if pods:
        metadata = monitor["metadata"]
        yield {"target_label": "job", "replacement": f"{metadata['namespace']}/{metadata['name']}"}
    else:
        yield {"source_labels": ["__meta_kubernetes_service_name"], "target_label": "service"}
        yield {"source_labels": ["__meta_kubernetes_service_name"], "target_label": "job"}


def _selection(selector: Manifest, kind: str) -> Iterator[dict[str, Any]]:
    for key, value in selector.get("matchLabels", {}).items():
        sources = [f"__meta_kubernetes_{kind}_{form}_{sanitized(key)}" for form in ("label", "labelpresent")]
        yield {"action": "keep", "source_labels": sources, "regex": f"({value});true"}
    for expression in selector.get("matchExpressions", []):
        if expression["operator"] != "Exists":
            raise ValueError(f"no translation for the selector operator {expression['operator']}")
        source = f"__meta_kubernetes_{kind}_labelpresent_{sanitized(expression['key'])}"
        yield {"action": "keep", "source_labels": [source], "regex": "true"}


def _snake_case(rule: Manifest) -> dict[str, Any]:
    return {re.sub(r"[A-Z]", lambda letter: f"_{letter[0].lower()}", key): value for key, value in rule.items()}
