"""PersistentVolumeClaim of a volume with a claimTemplate."""

from typing import Any

from distill_api.job import DistillJob
from distill_operator.builders.metadata import child_metadata
from distill_operator.types import naming


def build_claim(job: DistillJob, namespace: str, volume: str) -> dict[str, Any]:
    """The claim of `volume` (checkpoints, data or models), which must have a claimTemplate."""
    source = naming.volumes(job.spec)[volume]
    assert source.claim_template is not None
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": child_metadata(job, namespace, naming.claim_name(job.metadata.name, volume, source)),
        "spec": source.claim_template.to_wire(),
    }
