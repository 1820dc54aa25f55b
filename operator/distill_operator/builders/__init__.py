"""Kubernetes objects of a DistillJob, one builder per kind. Pure: the same job gives the same manifests."""

from distill_api.status import Attempt
from distill_operator.builders.claim import build_claim
from distill_operator.builders.job import build_job
from distill_operator.builders.network_policy import build_network_policy
from distill_operator.builders.placeholder import build_placeholders
from distill_operator.builders.service import build_service
from distill_operator.types.actions import Create
from distill_operator.types.observed import Observed
from distill_operator.types.settings import Settings

__all__ = ["build_claim", "build_job", "build_network_policy", "build_placeholders", "build_service", "gang"]


def gang(observed: Observed, attempt: Attempt, settings: Settings) -> tuple[Create, ...]:
    """All objects of an attempt; claims and Service come before the pods that use them.

    The claims belong to the job, so that later attempts find them.
    """
    job, namespace = observed.job, observed.namespace
    templates = [name for name, volume in job.spec.volumes.by_name().items() if volume.claim_template is not None]
    return (
        *(Create(build_claim(job, namespace, volume)) for volume in templates),
        Create(build_network_policy(job, namespace, settings), update=True),
        Create(build_service(job, namespace, attempt.number)),
        Create(build_job(job, namespace, attempt.number, attempt.nodes, settings, attempt.avoids or ())),
    )
