"""Pod template of a training pod; it complies with the restricted Pod Security Standard."""

from collections.abc import Sequence
from typing import Any

from distill_api.constants import METRICS_PORT, TRAINER_CONTAINER, Env, Label, Path
from distill_api.job import DistillJob
from distill_api.logs import FORMAT_VARIABLE
from distill_api.pod.run import Directories, RunConfig
from distill_api.spec.pods import DataCache, Scheduling
from distill_api.spec.recipe import applied
from distill_api.spec.recovery import Recovery
from distill_api.spec.volumes import ClaimRetentionPolicy, SourceVolume, Volume, Volumes
from distill_operator.builders.affinity import avoiding
from distill_operator.builders.metadata import labels
from distill_operator.builders.resources import build_resources
from distill_operator.builders.template import merged
from distill_operator.types import attempts, naming
from distill_operator.types.settings import Settings

SHM_GIB_PER_PROCESS = 1
"""Limit of /dev/shm, through which NCCL connects GPUs that cannot read each other's memory. Only what is used takes
memory. A volume named shm in spec.template replaces it.
"""
NOT_THE_TRAINERS: dict[str, Any] = {
    "template": None,
    "resources": None,
    "scheduling": Scheduling(),
    "persistent_volume_claim_retention_policy": ClaimRetentionPolicy(),
    "suspend": False,
    "image_pull_secrets": [],
    "clean_pod_policy": "None",
}
"""Fields of the spec that the trainer does not read, without which it may be older than they are."""
NOT_THE_TRAINERS_RECOVERY: dict[str, Any] = {
    field: Recovery.model_fields[field].get_default(call_default_factory=True)
    for field in ("avoid_node_seconds", "exit_codes")
}
"""The same of spec.recovery."""
MOUNTS = {"checkpoints": Path.CHECKPOINTS, "data": Path.DATA, "models": Path.MODELS}


def build_pod_template(
    job: DistillJob,
    namespace: str,
    attempt: int,
    nodes: int,
    settings: Settings,
    *,
    affinity: dict[str, Any] | None = None,
    avoids: Sequence[str] = (),
) -> dict[str, Any]:
    """metadata and spec of the attempt's pods, with those of spec.template. `avoids`: nodes that they must not use."""
    name, spec = job.metadata.name, job.spec
    optional = {
        "priorityClassName": spec.scheduling.priority_class_name,
        "nodeSelector": spec.scheduling.node_selector,
        "tolerations": spec.scheduling.tolerations,
        "imagePullSecrets": [secret.to_wire() for secret in spec.image_pull_secrets] or None,
        "affinity": affinity,
    }
    ours = {
        "metadata": {
            "labels": {**labels(job, attempt), Label.COMMITTED_STEP: str(attempts.committed_step(job.status))}
        },
        "spec": {
            "restartPolicy": "Never",
            "subdomain": naming.attempt_name(name, attempt),
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": spec.recovery.grace_period_seconds,
            "securityContext": _security(settings.trainer_user),
            "containers": [_container(job, namespace, attempt, nodes, settings)],
            "volumes": _volumes(job),
            **{key: value for key, value in optional.items() if value is not None},
        },
    }
    template = merged(ours, spec.template or {})
    return {**template, "spec": avoiding(template["spec"], avoids, attempts.unwanted_nodes(job.status))}


def _security(user: int | None) -> dict[str, Any]:
    """Of the pod; without a user the platform chooses user, group and fsGroup, as OpenShift does."""
    ids = {"runAsUser": user, "runAsGroup": user, "fsGroup": user}  # fsGroup makes claims writable whatever their owner
    return {
        "runAsNonRoot": True,
        **(ids if user is not None else {}),
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _container(job: DistillJob, namespace: str, attempt: int, nodes: int, settings: Settings) -> dict[str, Any]:
    spec = job.spec
    return {
        "name": TRAINER_CONTAINER,
        "image": spec.image or settings.trainer_image,
        "env": [
            {"name": Env.RUN, "value": run_config(job, namespace, attempt, nodes).to_json()},
            {"name": Env.PARENT, "value": ""},  # a variable that is named here wins over one of the template's envFrom
            _from_label(Env.ATTEMPT, Label.ATTEMPT),
            _from_label(Env.COMMITTED_STEP, Label.COMMITTED_STEP),
            {"name": "HOME", "value": Path.SCRATCH},
            *([{"name": FORMAT_VARIABLE, "value": "json"}] if settings.trainer_log_format == "json" else []),
            {"name": "USER", "value": TRAINER_CONTAINER},  # torch asks for the user's name, and not every id has one
        ],
        "ports": [
            {
                "name": "metrics" if rank == 0 else f"metrics-{rank}",
                "containerPort": METRICS_PORT + rank,
                "protocol": "TCP",
            }
            for rank in range(spec.processes_per_node)
        ],
        # The operator's second view of a rank 0 that does not answer it, see stall.py.
        "readinessProbe": {
            "httpGet": {"path": "/healthz", "port": METRICS_PORT},
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
        "terminationMessagePath": Path.TERMINATION,
        "terminationMessagePolicy": "File",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "resources": build_resources(spec),
        "volumeMounts": _mounts(job),
    }


def _from_label(variable: str, label: str) -> dict[str, Any]:
    return {"name": variable, "valueFrom": {"fieldRef": {"fieldPath": f"metadata.labels['{label}']"}}}


def run_config(job: DistillJob, namespace: str, attempt: int, nodes: int) -> RunConfig:
    """The configuration of every pod of the attempt. Its spec has the nodes of the full size, because the trainer takes
    the number of shards from there.
    """
    name = job.metadata.name
    full = attempts.full_nodes(job.status, job.spec)
    recovery = job.spec.recovery.model_copy(update=NOT_THE_TRAINERS_RECOVERY)
    recipe = attempts.recipe(job.status, job.spec)
    changed = {"nodes": full, "recovery": recovery, "volumes": _as_claims(job.spec.volumes)}
    spec = job.spec.model_copy(update={**NOT_THE_TRAINERS, **changed})
    return RunConfig(
        job=name,
        uid=job.metadata.uid or "",
        attempt=attempt,
        nodes=nodes,
        rendezvous=naming.rendezvous(name, namespace, attempt),
        spec=applied(spec, recipe),
        recipe=recipe,
        directories=Directories(
            models=Path.MODELS if job.spec.volumes.models else None,
            cache=Path.DATA_CACHE if job.spec.data_cache else None,
        ),
    )


def _as_claims(volumes: Volumes) -> Volumes:
    """The volumes for the trainer, which reads files wherever they are from and may be older than other sources."""
    read = {name: volume for name in ("data", "models") if (volume := getattr(volumes, name)) is not None}
    return volumes.model_copy(
        update={name: SourceVolume(claim_name=name) for name, volume in read.items() if not volume.is_claim}
    )


def _pod_volume_of(job: DistillJob) -> dict[str, str]:
    """The pod volume of each of the job's volumes: one for each claim, named after the first volume that uses it."""
    first: dict[str, str] = {}
    claims = job.spec.volumes.claims(job.metadata.name)
    return {
        volume: first.setdefault(claims[volume], volume) if volume in claims else volume
        for volume in job.spec.volumes.by_name()
    }


def _volumes(job: DistillJob) -> list[dict[str, Any]]:
    sources = job.spec.volumes.by_name()
    return [
        *(
            {"name": volume, **_source(job, volume, sources[volume])}
            for volume, pod_volume in _pod_volume_of(job).items()
            if volume == pod_volume
        ),
        {"name": "tmp", "emptyDir": {}},
        {
            "name": "shm",
            "emptyDir": {"medium": "Memory", "sizeLimit": f"{SHM_GIB_PER_PROCESS * job.spec.processes_per_node}Gi"},
        },
        *([] if job.spec.data_cache is None else [_data_cache(job.spec.data_cache)]),
    ]


def _data_cache(cache: DataCache) -> dict[str, Any]:
    """The volume of the copies. On a disk the trainer alone keeps the size: the kubelet would evict the pod for it."""
    in_memory = {"medium": "Memory", "sizeLimit": cache.size}
    return {"name": "data-cache", "emptyDir": in_memory if cache.medium == "ram" else {}}


def _source(job: DistillJob, volume: str, source: Volume) -> dict[str, Any]:
    if isinstance(source, SourceVolume) and source.image is not None:
        return {"image": source.image.to_wire()}
    if isinstance(source, SourceVolume) and source.empty_dir is not None:
        return {"emptyDir": source.empty_dir.to_wire()}
    return {"persistentVolumeClaim": {"claimName": source.claim(job.metadata.name, volume)}}


def _mounts(job: DistillJob) -> list[dict[str, Any]]:
    pod_volumes = _pod_volume_of(job)
    mounts: list[dict[str, Any]] = []
    for volume, source in job.spec.volumes.by_name().items():
        mount: dict[str, Any] = {"name": pod_volumes[volume], "mountPath": MOUNTS[volume]}
        if source.sub_path:
            mount["subPath"] = source.sub_path
        if volume != "checkpoints":
            mount["readOnly"] = True
        mounts.append(mount)
    cache = [{"name": "data-cache", "mountPath": Path.DATA_CACHE}] if job.spec.data_cache is not None else []
    return [*mounts, {"name": "tmp", "mountPath": Path.SCRATCH}, {"name": "shm", "mountPath": Path.SHM}, *cache]
