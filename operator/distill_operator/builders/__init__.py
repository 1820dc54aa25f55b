"""Kubernetes objects of a DistillJob, one builder per kind. Pure: the same job gives the same manifests."""

from typing import Any

from distill_api.status import Attempt
from distill_operator.builders.claim import build_claim
from distill_operator.builders.job import build_job
from distill_operator.builders.network_policy import build_network_policy
from distill_operator.builders.service import build_service
from distill_operator.intent import Create
from distill_operator.observed import Observed

__all__ = ["build_claim", "build_job", "build_network_policy", "build_service", "claim", "gang"]


def gang(observed: Observed, attempt: Attempt, image: str) -> tuple[Create, ...]:
    """All that an attempt needs; the Service comes before the pods that look for its names."""
    job, namespace = observed.job, observed.namespace
    return (
        Create(build_network_policy(job, namespace)),
        Create(build_service(job, namespace, attempt.number)),
        Create(build_job(job, namespace, attempt.number, attempt.nodes, image)),
    )


def claim(observed: Observed, volume: str) -> dict[str, Any]:
    """The claim of a volume that is made from a template."""
    return build_claim(observed.job, observed.namespace, volume)
