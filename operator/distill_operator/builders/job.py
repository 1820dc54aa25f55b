"""Indexed Job of one attempt: it starts all pods once, and ends them together."""

from typing import Any

from distill_api.constants import TRAINER_CONTAINER, ExitCode
from distill_api.job import DistillJob
from distill_operator.builders.metadata import child_metadata
from distill_operator.builders.pod import build_pod_template
from distill_operator.builders.template import merged
from distill_operator.types import naming


def build_job(job: DistillJob, namespace: str, attempt: int, nodes: int, image: str) -> dict[str, Any]:
    """The Job never replaces a pod: the first one that fails ends the attempt, and the operator starts the next one.

    The pod failure policy only provides a message that names pod and rule and outlives the pods. It has no rule for
    exit code 143, because it could name a rank that stopped together with a disrupted one.
    """
    template = build_pod_template(job, namespace, attempt, nodes, image)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": child_metadata(job, namespace, naming.attempt_name(job.metadata.name, attempt), attempt),
        "spec": {
            "completionMode": "Indexed",
            "completions": nodes,
            "parallelism": nodes,
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {
                "rules": [
                    {
                        "action": "FailJob",
                        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                    },
                    {
                        "action": "FailJob",
                        "onExitCodes": {
                            "containerName": TRAINER_CONTAINER,
                            "operator": "In",
                            "values": [int(ExitCode.PERMANENT)],
                        },
                    },
                ]
            },
            "template": merged(template, job.spec.template or {}),
        },
    }
