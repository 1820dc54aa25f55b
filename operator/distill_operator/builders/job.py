"""Indexed Job of one attempt: it starts all pods once, and ends them together."""

from collections.abc import Sequence
from typing import Any

from distill_api.constants import TRAINER_CONTAINER, ExitCode
from distill_api.job import DistillJob
from distill_api.spec.fields import Recovery
from distill_api.spec.rules.exit_codes import ECHOED
from distill_operator.builders.affinity import build_affinity
from distill_operator.builders.metadata import child_metadata, queue_labels, selector_of_attempt
from distill_operator.builders.pod import build_pod_template
from distill_operator.types import naming
from distill_operator.types.settings import Settings


def build_job(
    job: DistillJob, namespace: str, attempt: int, nodes: int, settings: Settings, avoids: Sequence[str] = ()
) -> dict[str, Any]:
    """A Job of `nodes` pods, none of which runs on a node that the attempt avoids.

    A queue that the DistillJob names holds it; that is asked of the queue's webhook by labels, and the Job is not made
    suspended, because without a queue nobody would resume it.

    The Job never replaces a pod: the first one that fails ends the attempt, and the operator starts the next one.

    The pod failure policy only provides a message that names pod and rule and outlives the pods. It has no rule for
    exit code 143, because it could name a rank that stopped together with a disrupted one. Every action is FailJob,
    also for codes that spec.recovery.exitCodes ignores: the operator starts the next attempt, not the Job.
    """
    others = selector_of_attempt(job.metadata.name, attempt)
    affinity = build_affinity(job.spec.scheduling, others) if nodes > 1 else None
    template = build_pod_template(job, namespace, attempt, nodes, settings, affinity=affinity, avoids=avoids)
    metadata = child_metadata(job, namespace, naming.attempt_name(job.metadata.name, attempt), attempt, avoids)
    metadata["labels"] = {**queue_labels(job), **metadata["labels"]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "completionMode": "Indexed",
            "completions": nodes,
            "parallelism": nodes,
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": _rules(job.spec.recovery)},
            "template": template,
        },
    }


def _rules(recovery: Recovery) -> list[dict[str, Any]]:
    disrupted = {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    asked = ([code for code in sorted(rule.values) if code not in ECHOED] for rule in recovery.exit_codes)
    codes = ([int(ExitCode.PERMANENT)], *filter(None, asked))
    return [disrupted, *({"action": "FailJob", "onExitCodes": _in(values)} for values in codes)]


def _in(values: list[int]) -> dict[str, Any]:
    return {"containerName": TRAINER_CONTAINER, "operator": "In", "values": values}
