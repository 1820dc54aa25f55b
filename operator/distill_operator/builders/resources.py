"""Resources of the trainer container: its accelerators, and the CPU and memory that it requests by default."""

from math import ceil
from typing import Any

from distill_api.constants import Requests
from distill_api.reading.quantity import amount
from distill_api.spec.fields import DistillJobSpec, Resources
from distill_api.spec.rules.across import trainers_resources


def build_resources(spec: DistillJobSpec) -> dict[str, Any]:
    """What spec.resources gives, the accelerators, and requests of CPU and memory so that the pod is not BestEffort.

    A resource that has a limit and no request is left to Kubernetes, which then requests the limit: a default above the
    limit would be refused. spec.template is merged in later; it has no say if there is spec.resources.
    """
    given = spec.resources or Resources()
    limited = given.limits.keys() | _templates_limits(spec)
    defaults = {name: amount for name, amount in _defaults(spec).items() if name not in limited}
    requests, limits = {**defaults, **given.requests}, dict(given.limits)
    if spec.accelerators.per_node > 0:
        limits[spec.accelerators.resource] = str(spec.accelerators.per_node)
    return {kind: amounts for kind, amounts in (("requests", requests), ("limits", limits)) if amounts}


def _defaults(spec: DistillJobSpec) -> dict[str, str]:
    workers = min(spec.training.workers, Requests.WORKERS)
    cpu = spec.processes_per_node * (Requests.CPU_PER_PROCESS + workers * Requests.CPU_PER_WORKER)
    of_worker = Requests.MEMORY_PER_WORKER + Requests.BATCHES_PER_WORKER * _batch(spec)
    memory = spec.processes_per_node * (Requests.MEMORY_PER_PROCESS + ceil(workers * of_worker))
    cache = spec.data_cache
    size = ceil(amount(cache.size) / 2**20) if cache is not None else 0
    if cache is not None and cache.medium == "node":
        return {"cpu": f"{cpu}m", "memory": f"{memory}Mi", "ephemeral-storage": f"{size}Mi"}
    return {"cpu": f"{cpu}m", "memory": f"{memory + size}Mi"}


def _batch(spec: DistillJobSpec) -> float:
    """MiB of a rank's images in a step; on GPUs with those of a validation batch, which are twice as many."""
    unlabelled = spec.dataset.unlabelled.ratio if spec.dataset.unlabelled is not None else 0.0
    validation = 2 if spec.accelerators.per_node > 0 and spec.training.val else 0
    images = spec.training.batch / spec.world_size * (1 + unlabelled + validation)
    return images * 3 * spec.training.imgsz**2 / 2**20


def _templates_limits(spec: DistillJobSpec) -> set[str]:
    return {name for given in trainers_resources(spec.template) for name in given.get("limits") or {}}
