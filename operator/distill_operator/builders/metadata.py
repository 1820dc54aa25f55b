"""metadata of every child: labels to select it by, and the DistillJob as its owner."""

from typing import Any

from distill_api.constants import API_VERSION, FIELD_MANAGER, KIND, SINGULAR, Component, Label
from distill_api.job import DistillJob


def labels(job: str, attempt: int | None = None) -> dict[str, str]:
    """Labels of a child of the job, or of one attempt."""
    common = {
        Label.NAME: SINGULAR,
        Label.MANAGED_BY: FIELD_MANAGER,
        Label.COMPONENT: str(Component.TRAINER),
        Label.JOB: job,
    }
    return common if attempt is None else {**common, Label.ATTEMPT: str(attempt)}


def selector(job: str, attempt: int | None = None) -> dict[str, str]:
    """Labels that select the pods of the job, or of one attempt."""
    chosen = {Label.JOB: job}
    return chosen if attempt is None else {**chosen, Label.ATTEMPT: str(attempt)}


def child_metadata(job: DistillJob, namespace: str, name: str, attempt: int | None = None) -> dict[str, Any]:
    """metadata of a child, which Kubernetes deletes with the DistillJob."""
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
