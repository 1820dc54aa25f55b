"""Shared memory (/dev/shm) for batches on their way from data loading processes to the training processes."""

from math import ceil
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from distill_api.spec.fields import DistillJobSpec

PREFETCH: Final = 4
"""Batches that each data loading process loads in advance."""
MARGIN: Final = 1.25
"""For what a batch has besides images: labels, and the masks of segmentation."""
LARGEST_GRID: Final = 64
"""training.imgsz is rounded up to a multiple of the model's largest stride, which is at most this."""


def in_flight_bytes(batch_bytes: int, workers: int, ranks: int) -> int:
    """Bytes of all batches that can be under way on a node with `ranks` ranks of `workers` processes each.

    `batch_bytes`: size of a batch's images.
    """
    return ceil(MARGIN * batch_bytes * workers * (PREFETCH + 1) * ranks)


def needed_bytes(spec: "DistillJobSpec") -> int:
    """Bytes of shared memory for which a pod of the job never has to send batches through pipes.

    The loaders of training and, on GPUs, of validation, whose batches have two shards, have batches under way at the
    same time.
    """
    side = ceil(spec.training.imgsz / LARGEST_GRID) * LARGEST_GRID
    images = spec.training.batch // spec.world_size
    more = max(1, round(spec.dataset.unlabelled.ratio * images)) if spec.dataset.unlabelled is not None else 0
    together = images + more + (2 * images if spec.uses_cuda else 0)
    return in_flight_bytes(together * 3 * side**2, spec.training.workers, spec.processes_per_node)
