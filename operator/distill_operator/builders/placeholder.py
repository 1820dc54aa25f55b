"""Job of placeholder pods: they request what training pods request, do nothing, and stop at once."""

from collections.abc import Sequence
from typing import Any

from distill_api.constants import TRAINER_CONTAINER, Component, Label, QueueLabel
from distill_operator.builders.affinity import build_affinity
from distill_operator.builders.metadata import child_metadata, queue_labels, selector
from distill_operator.builders.pod import build_pod_template
from distill_operator.types import naming
from distill_operator.types.observed import Observed
from distill_operator.types.settings import Settings

WAIT = "import signal; signal.sigwait({signal.SIGTERM, signal.SIGINT})"
GRACE_SECONDS = 1
"""They have nothing to save, and training pods wait for their nodes."""


def build_placeholders(
    observed: Observed, nodes: int, settings: Settings, avoids: Sequence[str] = ()
) -> dict[str, Any]:
    """A Job of `nodes` pods, each on a node of its own without other pods of the DistillJob, and not on one that the
    job avoids, but near the others if the job asks for that.

    They wait in the queue that the DistillJob names, with the priority of their own PriorityClass.
    To the scheduler they are like training pods of a lower priority, and they pull the same image. They run nothing of
    the user's.
    """
    job, namespace = observed.job, observed.namespace
    name = job.metadata.name
    labels = {Label.COMPONENT: str(Component.PLACEHOLDER)}
    metadata = child_metadata(job, namespace, naming.placeholder_name(name), avoids=avoids)
    metadata["labels"] = {**metadata["labels"], **labels}
    affinity = build_affinity(job.spec.scheduling, selector(name))
    template = build_pod_template(job, namespace, 1, nodes, settings, affinity=affinity, avoids=avoids)
    template["metadata"]["labels"] = {**template["metadata"]["labels"], **metadata["labels"]}
    del template["metadata"]["labels"][Label.ATTEMPT]
    spec = template["spec"]
    for field in ("subdomain", "initContainers"):
        spec.pop(field, None)
    spec["terminationGracePeriodSeconds"] = GRACE_SECONDS
    trainer = next(c for c in spec["containers"] if c["name"] == TRAINER_CONTAINER)
    spec["containers"] = [_idle(container, trainer) for container in spec["containers"]]
    if settings.placeholder_priority_class:
        spec["priorityClassName"] = settings.placeholder_priority_class
    queued = queue_labels(job)
    queued.pop(QueueLabel.PRIORITY_CLASS, None)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {**metadata, "labels": {**queued, **metadata["labels"]}},
        "spec": {"completions": nodes, "parallelism": nodes, "backoffLimit": 0, "template": template},
    }


def _idle(container: dict[str, Any], trainer: dict[str, Any]) -> dict[str, Any]:
    """A container that requests what this one does, and only waits, in the trainer's image."""
    kept: dict[str, Any] = {
        key: value for key, value in trainer.items() if key in ("image", "imagePullPolicy", "securityContext")
    }
    resources = container.get("resources", {})
    return {**kept, "name": container["name"], "resources": resources, "command": ["python", "-c", WAIT]}
