"""Headless Service that gives the pods of an attempt DNS names."""

from typing import Any

from distill_api.constants import METRICS_PORT, RENDEZVOUS_PORT
from distill_api.job import DistillJob
from distill_operator.builders.metadata import child_metadata, selector_of_attempt
from distill_operator.types import naming


def build_service(job: DistillJob, namespace: str, attempt: int) -> dict[str, Any]:
    """It publishes pods that are not ready, because they need rank 0's name to become ready."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": child_metadata(job, namespace, naming.attempt_name(job.metadata.name, attempt), attempt),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": selector_of_attempt(job.metadata.name, attempt),
            "ports": [
                {"name": "rendezvous", "port": RENDEZVOUS_PORT, "protocol": "TCP"},
                {"name": "metrics", "port": METRICS_PORT, "protocol": "TCP"},
            ],
        },
    }
