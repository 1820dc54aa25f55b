"""Validates a model on all ranks, with the same metrics as Ultralytics' `val`.

Images are in the same rectangular batches as in Ultralytics, whatever the number of ranks; rank r validates batches
r, r + W, r + 2W …. Each rank matches its own detections and sends the matches to rank 0. Rank 0 computes the metrics
from all of them, in the order of the batches, and sends the metrics to all ranks. So the result does not depend on the
world size. Nor does it depend on the clock: see nms.py.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.models.yolo.obb import OBBValidator
from ultralytics.models.yolo.pose import PoseValidator
from ultralytics.models.yolo.segment import SegmentationValidator

from distill_trainer.data.datasets.arguments import data_arguments
from distill_trainer.data.datasets.scanned import ScannedDataset
from distill_trainer.training.evaluation.nms import without_time_limit
from distill_trainer.training.evaluation.val_data import ValData
from distill_trainer.training.parallel.collectives import any_rank, broadcast_state, gather_on_rank0

__all__ = ["SUFFIX", "VALIDATORS", "Interrupted", "ValData", "ValMetrics", "validate"]

VALIDATORS: dict[str, type[DetectionValidator]] = {
    "detect": DetectionValidator,
    "segment": SegmentationValidator,
    "pose": PoseValidator,
    "obb": OBBValidator,
}
SUFFIX = {"detect": "B", "segment": "M", "pose": "P", "obb": "B"}
"""Suffix of the task's metrics in Ultralytics: boxes (B), masks (M) or keypoints (P)."""


class Interrupted(Exception):
    """A rank has a stop request, and all ranks ended the validation before the same batch."""


@dataclass(frozen=True)
class ValMetrics:
    """Metrics of the whole validation split, the same on every rank."""

    map: float
    """mAP50-95 of the task's output: boxes (detect, obb), masks (segment) or keypoints (pose)."""
    map50: float
    precision: float
    recall: float
    fitness: float
    """The metric by which Ultralytics chooses the best checkpoint."""
    losses: dict[str, float]
    """Means over the batches by Ultralytics' names, without the prefix val/."""
    per_class: dict[str, float]
    """mAP50-95 of the task's output by class name, for classes that occur."""
    results: dict[str, float]
    """All metrics by Ultralytics' names, such as metrics/mAP50-95(B)."""
    images: int
    seconds: float


class Figures(Protocol):
    """Collects the data for plots of a validation."""

    of_rank: Any
    """This rank's data, picklable; on rank 0, after `merge`, that of all ranks."""

    def add_batch(self, validator: Any, number: int, batch: dict[str, Any], found: list[dict[str, Tensor]]) -> None:
        """Add a validated batch; `number` is its index in the whole split."""

    def merge(self, all_ranks: Sequence[Any], validator: Any, matches: dict[str, list[Any]]) -> None:
        """Merge `of_rank` of all ranks, on rank 0. `matches`: the matches of all images, in order."""


@dataclass
class _Share:
    """The results of one rank: index, matches and losses of each of its batches, and its data for plots."""

    numbers: list[int] = field(default_factory=list)
    matches: list[dict[str, list[Any]]] = field(default_factory=list)
    losses: list[dict[str, float]] = field(default_factory=list)
    figures: Any = None


def _validator(data: ValData, model: nn.Module, device: torch.device, scratch: Path, plots: bool) -> DetectionValidator:
    arguments = data_arguments(data.training, data.task, data.imgsz, mode="val", rect=True, plots=plots)
    validator = VALIDATORS[data.task](args=vars(arguments), save_dir=scratch)
    validator.training = False
    validator.device = device
    validator.data = data.info.as_ultralytics()
    validator.dataloader = _Loader(data.dataset)
    validator.init_metrics(model)
    return validator


@dataclass(frozen=True)
class _Loader:
    """The part of a data loader that Ultralytics' validator needs here."""

    dataset: ScannedDataset


@contextmanager
def _head(model: Any, nms: bool | None) -> Iterator[None]:
    """Select the head that Ultralytics validates for its argument `nms`, and restore the model on exit."""
    was_training, head = model.training, model.model[-1]
    two_branches = getattr(head, "one2one_cv3", None) is not None
    before = getattr(model, "end2end", False)
    model.eval()
    if two_branches:
        model.end2end = nms is False
    try:
        yield
    finally:
        if two_branches:
            model.end2end = before
        model.train(was_training)


def _validate_batch(
    validator: DetectionValidator,
    model: Any,
    batch: dict[str, Any],
    device: torch.device,
    half: bool,
    add: Callable[[dict[str, Any], list[dict[str, Tensor]]], None] | None,
) -> tuple[dict[str, list[Any]], dict[str, float]]:
    """The matches of each image of the batch, and the batch's losses."""
    batch = validator.preprocess(batch)
    reduced = torch.float16 if device.type == "cuda" else torch.bfloat16
    with torch.autocast(device.type, dtype=reduced, enabled=half):
        predictions = model(batch["img"])
        items: dict[str, Tensor] = model.loss(batch, predictions)[1]
        found = validator.postprocess(predictions)
    validator.update_metrics(found, batch)
    if add is not None:
        add(batch, found)
    matches = {key: list(values) for key, values in validator.metrics.stats.items()}
    validator.metrics.clear_stats()
    validator.metrics.clear_image_metrics()
    return matches, {name: float(value) for name, value in items.items()}


def _merge_shares(shares: Sequence[_Share]) -> tuple[dict[str, list[Any]], dict[str, float]]:
    """The matches of all images in the order of the batches, and the mean losses over the batches."""
    ordered = sorted(
        (number, matches, losses)
        for share in shares
        for number, matches, losses in zip(share.numbers, share.matches, share.losses, strict=True)
    )
    matches = {key: [image for _, part, _ in ordered for image in part[key]] for key in ordered[0][1]}
    means = {name: sum(losses[name] for _, _, losses in ordered) / len(ordered) for name in ordered[0][2]}
    return matches, means


def _metrics(
    validator: DetectionValidator, task: str, losses: dict[str, float], images: int, seconds: float
) -> ValMetrics:
    results = {name: float(value) for name, value in validator.get_stats().items()}
    suffix = SUFFIX[task]
    metrics = validator.metrics
    per_class = {
        str(metrics.names[number]): float(metrics.class_result(row)[-1])
        for row, number in enumerate(metrics.ap_class_index)
    }
    return ValMetrics(
        map=results[f"metrics/mAP50-95({suffix})"],
        map50=results[f"metrics/mAP50({suffix})"],
        precision=results[f"metrics/precision({suffix})"],
        recall=results[f"metrics/recall({suffix})"],
        fitness=results["fitness"],
        losses=losses,
        per_class=per_class,
        results=results,
        images=images,
        seconds=seconds,
    )


def _to_all_ranks(metrics: ValMetrics | None, device: torch.device) -> ValMetrics:
    """Rank 0's metrics, on every rank."""
    sent = broadcast_state(asdict(metrics) if metrics is not None else None, device)
    assert sent is not None
    return ValMetrics(**sent)


def validate(
    model: nn.Module,
    data: ValData,
    *,
    half: bool = False,
    progress: Callable[[int, int], None] | None = None,
    stop: Callable[[], bool] | None = None,
    figures: Figures | None = None,
) -> ValMetrics:
    """Validate an Ultralytics model. All ranks must call this, with the same weights.

    The model's mode is restored. `half`: run under autocast (fp16 on CUDA, bf16 on CPU). `progress(done, total)` is
    called after each of this rank's batches. `stop` returns whether this rank has a stop request; the ranks exchange it
    before each batch, and all raise Interrupted if any has one. `figures` collects the data for plots. Either all ranks
    or none must pass `stop`, and likewise `figures`.
    """
    started = time.perf_counter()
    device, share = data.environment.device, _Share()
    rounds = -(-data.total_batches // data.environment.world_size)
    with (
        tempfile.TemporaryDirectory() as scratch,
        torch.no_grad(),
        _head(model, data.training.nms),
        without_time_limit(),
    ):
        batches = data.batches()
        validator = _validator(data, model, device, Path(scratch), plots=figures is not None)
        share.figures = figures.of_rank if figures is not None else None
        for done in range(rounds):
            if stop is not None and any_rank(stop(), device):
                raise Interrupted("validation was interrupted by a stop request")
            if done >= len(data.rank_batches):
                continue
            number = data.rank_batches[done]
            add = partial(figures.add_batch, validator, number) if figures is not None else None
            matches, losses = _validate_batch(validator, model, next(batches), device, half, add)
            share.numbers.append(number)
            share.matches.append(matches)
            share.losses.append(losses)
            if progress is not None:
                progress(done + 1, len(data.rank_batches))
        shares = gather_on_rank0(share)
        metrics = None
        if shares is not None:
            matches, losses = _merge_shares(shares)
            validator.metrics.stats = {key: list(values) for key, values in matches.items()}  # `_metrics` empties it
            validator.args.plots = False  # Ultralytics would plot now
            metrics = _metrics(validator, data.task, losses, data.images, time.perf_counter() - started)
            if figures is not None:
                figures.merge([each.figures for each in shares], validator, matches)
        return _to_all_ranks(metrics, device)
