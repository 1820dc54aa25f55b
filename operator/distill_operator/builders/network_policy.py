"""NetworkPolicy of the training pods: who reaches them, and what they reach."""

from typing import Any

from distill_api.constants import METRICS_PORT
from distill_api.job import DistillJob
from distill_operator.builders.metadata import child_metadata, selector
from distill_operator.types.settings import Settings

DNS_PORTS = (53, 5353)
"""Many network plugins compare with the DNS pod's own port, which is 5353 on OpenShift."""


def build_network_policy(job: DistillJob, namespace: str, settings: Settings) -> dict[str, Any]:
    """Ranks reach each other. The installation says who reaches the metrics ports, and what else pods may reach."""
    gang = {"podSelector": {"matchLabels": selector(job.metadata.name)}}
    spec: dict[str, Any] = {
        **gang,
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [gang]}, *_scraping(job, settings)],
    }
    if settings.trainer_egress is not None:
        dns = {"ports": [{"port": port, "protocol": protocol} for port in DNS_PORTS for protocol in ("UDP", "TCP")]}
        spec["policyTypes"].append("Egress")
        spec["egress"] = [{"to": [gang]}, dns, *settings.trainer_egress]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": child_metadata(job, namespace, job.metadata.name),
        "spec": spec,
    }


def _scraping(job: DistillJob, settings: Settings) -> list[dict[str, Any]]:
    """The rule for the metrics ports. A rule with an empty `from` would admit everybody."""
    last_port = METRICS_PORT + job.spec.processes_per_node - 1
    ports = {"ports": [{"port": METRICS_PORT, "endPort": last_port, "protocol": "TCP"}]}
    if settings.metrics_peers is None:
        return [ports]
    return [{"from": list(settings.metrics_peers), **ports}] if settings.metrics_peers else []
