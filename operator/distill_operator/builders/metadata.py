"""metadata of every child: labels to select it by, and the DistillJob as its owner."""

from collections.abc import Sequence
from typing import Any

from distill_api.constants import (
    API_VERSION,
    AVOIDED_NODES,
    FIELD_MANAGER,
    KIND,
    SINGULAR,
    Component,
    Label,
    QueueLabel,
)
from distill_api.job import DistillJob
from distill_operator.types import naming


def labels(job: DistillJob, attempt: int | None = None) -> dict[str, str]:
    """Labels of a child of the job, or of one attempt."""
    common: dict[str, str] = {
        Label.NAME: SINGULAR,
        Label.MANAGED_BY: FIELD_MANAGER,
        Label.COMPONENT: str(Component.TRAINER),
        Label.JOB: job.metadata.name,
        Label.UID: job.metadata.uid or "",
    }
    return common if attempt is None else {**common, Label.ATTEMPT: str(attempt)}


def selector(job: str) -> dict[str, str]:
    """Labels that select the pods of the job."""
    return {Label.JOB: job}


def selector_of_attempt(job: str, attempt: int) -> dict[str, str]:
    """Labels that select the pods of the Job that attempt `attempt` was started with, also in its later lives."""
    return {"batch.kubernetes.io/job-name": naming.attempt_name(job, attempt)}


def queue_labels(job: DistillJob) -> dict[str, str]:
    """Kueue's labels of the DistillJob: the LocalQueue that admits its pods, and their priority there."""
    given = job.metadata.labels or {}
    return {str(label): given[label] for label in QueueLabel if label in given}


def child_metadata(
    job: DistillJob, namespace: str, name: str, attempt: int | None = None, avoids: Sequence[str] = ()
) -> dict[str, Any]:
    """metadata of a child, which Kubernetes deletes with the DistillJob. `avoids`: nodes that its pods must not use."""
    return {
        **({"annotations": {AVOIDED_NODES: ",".join(avoids)}} if avoids else {}),
        "name": name,
        "namespace": namespace,
        "labels": labels(job, attempt),
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
