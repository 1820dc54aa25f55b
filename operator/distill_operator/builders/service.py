"""Headless Service that gives the pods of an attempt names to meet by."""

from typing import Any

from distill_api.constants import METRICS_PORT, RENDEZVOUS_PORT
from distill_api.job import DistillJob
from distill_operator.builders.metadata import child_metadata, selector
from distill_operator.types import naming


def build_service(job: DistillJob, namespace: str, attempt: int) -> dict[str, Any]:
    """Names are published before pods are ready: ranks must find rank 0 in order to become so."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": child_metadata(job, namespace, naming.attempt_name(job.metadata.name, attempt), attempt),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": selector(job.metadata.name, attempt),
            "ports": [
                {"name": "rendezvous", "port": RENDEZVOUS_PORT, "protocol": "TCP"},
                {"name": "metrics", "port": METRICS_PORT, "protocol": "TCP"},
            ],
        },
    }
