"""metadata that every child shares: labels to find it by, and the owner that it dies with."""

from typing import Any

from distill_api.constants import API_VERSION, FIELD_MANAGER, KIND, SINGULAR, Component, Label
from distill_api.job import DistillJob


def labels(job: str, attempt: int | None = None) -> dict[str, str]:
    """Labels of a child; with an attempt number, of one that belongs to that attempt alone."""
    common = {
        Label.NAME: SINGULAR,
        Label.MANAGED_BY: FIELD_MANAGER,
        Label.COMPONENT: str(Component.TRAINER),
        Label.JOB: job,
    }
    return common if attempt is None else {**common, Label.ATTEMPT: str(attempt)}


def selector(job: str, attempt: int | None = None) -> dict[str, str]:
    """The labels that pods of the job, or of one attempt, are selected by."""
    chosen = {Label.JOB: job}
    return chosen if attempt is None else {**chosen, Label.ATTEMPT: str(attempt)}


def child_metadata(job: DistillJob, namespace: str, name: str, attempt: int | None = None) -> dict[str, Any]:
    """metadata of a child that Kubernetes deletes together with the DistillJob."""
    return {
        "name": name,
        "namespace": namespace,
        "labels": labels(job.metadata.name, attempt),
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": job.metadata.name,
                "uid": job.metadata.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }
