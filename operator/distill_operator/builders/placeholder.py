"""Job of placeholder pods: they request what training pods request, do nothing, and stop at once."""

from typing import Any

from distill_api.constants import TRAINER_CONTAINER, Component, Label
from distill_api.job import DistillJob
from distill_operator.builders.metadata import child_metadata, selector
from distill_operator.builders.pod import build_pod_template
from distill_operator.builders.template import merged
from distill_operator.types import naming

WAIT = "import signal; signal.sigwait({signal.SIGTERM, signal.SIGINT})"
GRACE_SECONDS = 1
"""They have nothing to save, and training pods wait for their nodes."""


def build_placeholders(job: DistillJob, namespace: str, nodes: int, image: str) -> dict[str, Any]:
    """A Job of `nodes` pods, each on a node of its own without other pods of the DistillJob.

    To the scheduler they are like training pods, and they pull the same image.
    """
    name = job.metadata.name
    labels = {Label.COMPONENT: str(Component.PLACEHOLDER)}
    metadata = child_metadata(job, namespace, naming.placeholder_name(name))
    metadata["labels"] = {**metadata["labels"], **labels}
    template = merged(build_pod_template(job, namespace, 1, nodes, image), job.spec.template or {})
    template["metadata"]["labels"] = {**template["metadata"]["labels"], **metadata["labels"]}
    del template["metadata"]["labels"][Label.ATTEMPT]
    spec = template["spec"]
    for field in ("subdomain", "initContainers"):
        spec.pop(field, None)
    spec["terminationGracePeriodSeconds"] = GRACE_SECONDS
    spec["affinity"] = {**spec.get("affinity", {}), **_alone(name)}
    spec["containers"] = [_idle(container) for container in spec["containers"]]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {"completions": nodes, "parallelism": nodes, "backoffLimit": 0, "template": template},
    }


def _idle(container: dict[str, Any]) -> dict[str, Any]:
    if container["name"] != TRAINER_CONTAINER:
        return container
    kept = {key: value for key, value in container.items() if key not in ("env", "ports", "args")}
    return {**kept, "command": ["python", "-c", WAIT]}


def _alone(name: str) -> dict[str, Any]:
    term = {"labelSelector": {"matchLabels": selector(name)}, "topologyKey": "kubernetes.io/hostname"}
    return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
