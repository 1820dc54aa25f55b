"""PersistentVolumeClaim of a volume with a claimTemplate."""

from typing import Any

from distill_api.job import DistillJob
from distill_operator.builders.metadata import child_metadata


def build_claim(job: DistillJob, namespace: str, volume: str) -> dict[str, Any]:
    """The claim of `volume` (checkpoints, data or models), which must have a claimTemplate.

    A claim that is to be retained has no owner, so that nothing deletes it; its labels say whose it is.
    """
    source = job.spec.volumes.by_name()[volume]
    assert source.claim_template is not None
    metadata = child_metadata(job, namespace, source.claim(job.metadata.name, volume))
    if job.spec.persistent_volume_claim_retention_policy.when_deleted == "Retain":
        del metadata["ownerReferences"]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata,
        "spec": source.claim_template.to_wire(),
    }
