"""NetworkPolicy of the training pods: ranks reach each other, and everyone reaches the metrics ports."""

from typing import Any

from distill_api.constants import METRICS_PORT
from distill_api.job import DistillJob
from distill_operator.builders.metadata import child_metadata, selector


def build_network_policy(job: DistillJob, namespace: str) -> dict[str, Any]:
    """Ingress only. The metrics ports are open to all, because where Prometheus and the operator run is not known."""
    name = job.metadata.name
    last_port = METRICS_PORT + job.spec.processes_per_node - 1
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": child_metadata(job, namespace, name),
        "spec": {
            "podSelector": {"matchLabels": selector(name)},
            "policyTypes": ["Ingress"],
            "ingress": [
                {"from": [{"podSelector": {"matchLabels": selector(name)}}]},
                {"ports": [{"port": METRICS_PORT, "endPort": last_port, "protocol": "TCP"}]},
            ],
        },
    }
