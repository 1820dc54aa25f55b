"""Pod template of a training pod; it complies with the restricted Pod Security Standard."""

from typing import Any

from distill_api.constants import METRICS_PORT, TRAINER_CONTAINER, TRAINER_USER, Env, Path
from distill_api.job import DistillJob
from distill_api.pod.run import Directories, RunConfig
from distill_operator.builders.metadata import labels, selector
from distill_operator.types import naming

SHM_MIB_PER_PROCESS = 1024
"""Shared memory for batches from data-loading workers; a volume named shm in spec.template replaces it."""
MOUNTS = {"checkpoints": Path.CHECKPOINTS, "data": Path.DATA, "models": Path.MODELS}


def build_pod_template(job: DistillJob, namespace: str, attempt: int, nodes: int, image: str) -> dict[str, Any]:
    """metadata and spec of the attempt's pods, before spec.template is merged in."""
    name, spec = job.metadata.name, job.spec
    optional = {
        "priorityClassName": spec.scheduling.priority_class_name,
        "nodeSelector": spec.scheduling.node_selector,
        "tolerations": spec.scheduling.tolerations,
        "affinity": _one_pod_per_node(name, attempt) if nodes > 1 else None,
    }
    return {
        "metadata": {"labels": labels(name, attempt)},
        "spec": {
            "restartPolicy": "Never",
            "subdomain": naming.attempt_name(name, attempt),
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": spec.recovery.grace_period_seconds,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": TRAINER_USER,
                "runAsGroup": TRAINER_USER,
                "fsGroup": TRAINER_USER,  # makes claims writable whatever their owner
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [_container(job, namespace, attempt, nodes, image)],
            "volumes": _volumes(job),
            **{key: value for key, value in optional.items() if value is not None},
        },
    }


def _container(job: DistillJob, namespace: str, attempt: int, nodes: int, image: str) -> dict[str, Any]:
    spec = job.spec
    container: dict[str, Any] = {
        "name": TRAINER_CONTAINER,
        "image": spec.image or image,
        "env": [
            {"name": Env.RUN, "value": run_config(job, namespace, attempt, nodes).model_dump_json(by_alias=True)},
            {"name": "HOME", "value": Path.SCRATCH},
        ],
        "ports": [
            {
                "name": "metrics" if rank == 0 else f"metrics-{rank}",
                "containerPort": METRICS_PORT + rank,
                "protocol": "TCP",
            }
            for rank in range(spec.processes_per_node)
        ],
        "terminationMessagePath": Path.TERMINATION,
        "terminationMessagePolicy": "File",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": _mounts(job),
    }
    if spec.accelerators.per_node > 0:
        container["resources"] = {"limits": {spec.accelerators.resource: str(spec.accelerators.per_node)}}
    return container


def run_config(job: DistillJob, namespace: str, attempt: int, nodes: int) -> RunConfig:
    """The configuration of every pod of the attempt. The trainer does not need suspend and template."""
    name = job.metadata.name
    return RunConfig(
        job=name,
        uid=job.metadata.uid or "",
        attempt=attempt,
        nodes=nodes,
        rendezvous=naming.rendezvous(name, namespace, attempt),
        spec=job.spec.model_copy(update={"template": None, "suspend": False}),
        directories=Directories(models=Path.MODELS if job.spec.volumes.models else None),
    )


def _pod_volume_of(job: DistillJob) -> dict[str, str]:
    """The pod volume of each of the job's volumes: one for each claim, named after the first volume that uses it."""
    first: dict[str, str] = {}
    return {
        volume: first.setdefault(naming.claim_name(job.metadata.name, volume, source), volume)
        for volume, source in naming.volumes(job.spec).items()
    }


def _volumes(job: DistillJob) -> list[dict[str, Any]]:
    sources = naming.volumes(job.spec)
    claims = [
        {
            "name": volume,
            "persistentVolumeClaim": {"claimName": naming.claim_name(job.metadata.name, volume, sources[volume])},
        }
        for volume, pod_volume in _pod_volume_of(job).items()
        if volume == pod_volume
    ]
    shm = f"{SHM_MIB_PER_PROCESS * job.spec.processes_per_node}Mi"
    return [
        *claims,
        {"name": "tmp", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": shm}},
    ]


def _mounts(job: DistillJob) -> list[dict[str, Any]]:
    pod_volumes = _pod_volume_of(job)
    mounts: list[dict[str, Any]] = []
    for volume, source in naming.volumes(job.spec).items():
        mount: dict[str, Any] = {"name": pod_volumes[volume], "mountPath": MOUNTS[volume]}
        if source.sub_path:
            mount["subPath"] = source.sub_path
        if volume != "checkpoints":
            mount["readOnly"] = True
        mounts.append(mount)
    return [*mounts, {"name": "tmp", "mountPath": Path.SCRATCH}, {"name": "shm", "mountPath": Path.SHM}]


def _one_pod_per_node(job: str, attempt: int) -> dict[str, Any]:
    term = {
        "labelSelector": {"matchLabels": selector(job, attempt)},
        "topologyKey": "kubernetes.io/hostname",
    }
    return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
