"""Who uses which accelerators, and how well: by job and by node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from distill_api.constants import Label
from distill_api.reading.quantity import amount
from distill_client import Job
from distill_client.apiserver.kinds import Object

_LIVE = ("Pending", "Running")


@dataclass(frozen=True)
class JobUse:
    """One job."""

    namespace: str
    name: str
    phase: str
    pods: int
    """Pods that have a node."""
    accelerators: int
    """Of these pods."""
    images_per_second: float | None
    per_accelerator: float | None
    """images/s of each accelerator; None without one."""
    goodput: float | None


@dataclass(frozen=True)
class NodeUse:
    """One node."""

    name: str
    used: int
    """Accelerators that training pods hold."""
    capacity: int | None
    """Allocatable accelerators; None if nodes may not be read."""
    jobs: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class TopView:
    """Jobs and nodes, those with most accelerators first."""

    jobs: list[JobUse]
    nodes: list[NodeUse]


def top_view(jobs: Sequence[Job], pods: Iterable[Object], nodes: Sequence[Object] | None) -> TopView:
    """`pods`: training pods of all these jobs. `nodes`: None if they may not be read."""
    resources = {job.spec.accelerators.resource for job in jobs if job.readable} | {"nvidia.com/gpu"}
    placed = [pod for pod in pods if _placed(pod)]
    by_job: dict[tuple[str, str], list[Object]] = {}
    by_node: dict[str, list[Object]] = {}
    for pod in placed:
        metadata = pod["metadata"]
        by_job.setdefault((metadata["namespace"], (metadata.get("labels") or {}).get(Label.JOB, "")), []).append(pod)
        by_node.setdefault(pod["spec"]["nodeName"], []).append(pod)
    uses = [_job(job, by_job.get((job.namespace, job.name), []), resources) for job in jobs]
    capacity = {node["metadata"]["name"]: node for node in nodes or ()}
    names = sorted(by_node.keys() | {name for name, node in capacity.items() if _allocatable(node, resources)})
    rows = [
        _node(name, by_node.get(name, []), capacity.get(name) if nodes is not None else None, resources)
        for name in names
    ]
    return TopView(
        sorted(uses, key=lambda use: (-use.accelerators, -use.pods, use.namespace, use.name)),
        sorted(rows, key=lambda row: (-row.used, row.name)),
    )


def held(pod: Object, resources: Iterable[str]) -> int:
    """Accelerators that a pod requests."""
    containers = pod["spec"].get("containers") or ()
    limits = [((c.get("resources") or {}).get("limits") or {}) for c in containers]
    return sum(int(amount(str(limit[name]))) for limit in limits for name in resources if name in limit)


def _placed(pod: Object) -> bool:
    phase = (pod.get("status") or {}).get("phase", "Pending")
    return bool((pod.get("spec") or {}).get("nodeName")) and phase in _LIVE


def _job(job: Job, pods: Sequence[Object], resources: Iterable[str]) -> JobUse:
    status = job.status if job.readable else None  # a newer version's: its pods are those of any job
    progress, goodput = (status.progress, status.goodput) if status is not None else (None, None)
    accelerators = sum(held(pod, resources) for pod in pods)
    speed = progress.images_per_second if progress and job.phase == "Running" else None
    return JobUse(
        namespace=job.namespace,
        name=job.name,
        phase=str(job.phase),
        pods=len(pods),
        accelerators=accelerators,
        images_per_second=speed,
        per_accelerator=speed / accelerators if speed is not None and accelerators else None,
        goodput=goodput.ratio if goodput else None,
    )


def _node(name: str, pods: Sequence[Object], node: Object | None, resources: Iterable[str]) -> NodeUse:
    used = sum(held(pod, resources) for pod in pods)
    jobs = sorted({str((pod["metadata"].get("labels") or {}).get(Label.JOB, "?")) for pod in pods})
    return NodeUse(name, used, int(_allocatable(node, resources)) if node is not None else None, jobs)


def _allocatable(node: Mapping[str, Any], resources: Iterable[str]) -> Decimal:
    have = (node.get("status") or {}).get("allocatable") or {}
    return sum((amount(str(have[name])) for name in resources if name in have), Decimal(0))
