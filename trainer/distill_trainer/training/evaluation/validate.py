"""Validation shared out over the ranks, with the figures that Ultralytics' own `val` reports.

Images are put into the same rectangular batches as in Ultralytics, whatever the number of ranks; rank r takes batches
r, r + W, r + 2W …. Each rank matches its own detections; then all ranks exchange their matches and every one computes
the same metrics from all of them, in the order of the batches. So the result does not depend on the world size.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.models.yolo.obb import OBBValidator
from ultralytics.models.yolo.pose import PoseValidator
from ultralytics.models.yolo.segment import SegmentationValidator

from distill_trainer.data.arguments import data_arguments
from distill_trainer.data.scanned import ScannedDataset
from distill_trainer.training.evaluation.val_data import ValData
from distill_trainer.training.parallel.collectives import any_rank

__all__ = ["SUFFIX", "VALIDATORS", "Interrupted", "ValData", "ValMetrics", "validate"]

VALIDATORS: dict[str, type[DetectionValidator]] = {
    "detect": DetectionValidator,
    "segment": SegmentationValidator,
    "pose": PoseValidator,
    "obb": OBBValidator,
}
SUFFIX = {"detect": "B", "segment": "M", "pose": "P", "obb": "B"}
"""Which of Ultralytics' metrics is the task's own: boxes, masks or keypoints."""


class Interrupted(Exception):
    """A rank was asked to stop; all ranks left the validation at the same batch."""


@dataclass(frozen=True)
class ValMetrics:
    """Figures over the whole validation split, the same on every rank."""

    map: float
    """mAP50-95 of the task's own output: boxes (detect, obb), masks (segment) or keypoints (pose)."""
    map50: float
    precision: float
    recall: float
    fitness: float
    """What Ultralytics chooses its best checkpoint by."""
    losses: dict[str, float]
    """Means over the batches under Ultralytics' names, without the prefix val/."""
    per_class: dict[str, float]
    """mAP50-95 of the task's own output by class name, for classes that occur."""
    results: dict[str, float]
    """All metrics under Ultralytics' own names, such as metrics/mAP50-95(B)."""
    images: int
    seconds: float


class Figures(Protocol):
    """Collects what pictures of a validation are drawn from. What a rank adds must be picklable."""

    of_rank: Any
    """This rank's own until `merge`, then everybody's."""

    def add_batch(self, validator: Any, number: int, batch: dict[str, Any], found: list[dict[str, Tensor]]) -> None:
        """A batch is validated; `number` counts the batches of the whole split."""

    def merge(self, all_ranks: Sequence[Any], validator: Any, matches: dict[str, list[Any]]) -> None:
        """What every rank has added, None for a rank without figures, and the matches of all images in order."""


@dataclass
class _Share:
    """What one rank found: per batch, its number, its images' matches and its loss items; and its figures."""

    numbers: list[int] = field(default_factory=list)
    matches: list[dict[str, list[Any]]] = field(default_factory=list)
    losses: list[dict[str, float]] = field(default_factory=list)
    figures: Any = None


def _validator(
    data: ValData, model: nn.Module, device: torch.device, scratch: Path, pictured: bool
) -> DetectionValidator:
    arguments = data_arguments(data.training, data.task, data.imgsz, mode="val", rect=True, plots=pictured)
    validator = VALIDATORS[data.task](args=vars(arguments), save_dir=scratch)
    validator.training = False
    validator.device = device
    validator.data = data.info.as_ultralytics()
    validator.dataloader = _Loader(data.dataset)
    validator.init_metrics(model)
    return validator


@dataclass(frozen=True)
class _Loader:
    """All that Ultralytics' validator asks of its loader here: the largest number of objects in an image."""

    dataset: ScannedDataset


@contextmanager
def _head(model: nn.Module, nms: bool | None) -> Iterator[None]:
    """Use the head that Ultralytics validates for its argument `nms`, and put the model back as it was."""
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


def _one_batch(
    validator: DetectionValidator,
    model: nn.Module,
    batch: dict[str, Any],
    device: torch.device,
    half: bool,
    add: Callable[[dict[str, Any], list[dict[str, Tensor]]], None] | None,
) -> tuple[dict[str, list[Any]], dict[str, float]]:
    """Matches of each image of the batch, and the batch's loss items."""
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


def _gathered(share: _Share, world_size: int) -> list[_Share]:
    if world_size == 1:
        return [share]
    shares: list[Any] = [None] * world_size
    dist.all_gather_object(shares, share)
    return shares


def _merged(shares: Sequence[_Share]) -> tuple[dict[str, list[Any]], dict[str, float]]:
    """All images' matches in the order of the batches, and the mean of the loss items over the batches."""
    ordered = sorted(
        (number, matches, losses)
        for share in shares
        for number, matches, losses in zip(share.numbers, share.matches, share.losses, strict=True)
    )
    matches = {key: [image for _, part, _ in ordered for image in part[key]] for key in ordered[0][1]}
    means = {name: sum(losses[name] for _, _, losses in ordered) / len(ordered) for name in ordered[0][2]}
    return matches, means


def _report(
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


def validate(
    model: nn.Module,
    data: ValData,
    *,
    half: bool = False,
    progress: Callable[[int, int], None] | None = None,
    stop: Callable[[], bool] | None = None,
    figures: Figures | None = None,
) -> ValMetrics:
    """Validate an Ultralytics model on all ranks together; each must call this with the same weights.

    The model is left in the mode it came in. `half` runs it under autocast (fp16 on CUDA, bf16 on CPU).
    `progress(done, total)` is called after each of this rank's batches. With `stop`, the ranks agree before each
    batch whether any of them is asked to stop; either all of them or none must give it. Raises Interrupted then.
    The `figures`, which all ranks must give or none, collects what pictures of this validation are drawn from.
    """
    started = time.perf_counter()
    device, share = data.environment.device, _Share()
    rounds = -(-data.batches_in_all // data.environment.world_size)
    with (
        tempfile.TemporaryDirectory() as scratch,
        torch.no_grad(),
        _head(model, data.training.nms),
        data.open() as made,
    ):
        validator = _validator(data, model, device, Path(scratch), pictured=figures is not None)
        share.figures = figures.of_rank if figures is not None else None
        for done in range(rounds):
            if stop is not None and any_rank(stop(), device):
                raise Interrupted("validation was interrupted by a request to stop")
            if done >= len(data.my_batches):
                continue
            number = data.my_batches[done]
            add = partial(figures.add_batch, validator, number) if figures is not None else None
            matches, losses = _one_batch(validator, model, next(made), device, half, add)
            share.numbers.append(number)
            share.matches.append(matches)
            share.losses.append(losses)
            if progress is not None:
                progress(done + 1, len(data.my_batches))
        shares = _gathered(share, data.environment.world_size)
        matches, losses = _merged(shares)
        validator.metrics.stats = {key: list(values) for key, values in matches.items()}  # emptied by the report
        validator.args.plots = False  # Ultralytics would draw now, on every rank
        report = _report(validator, data.task, losses, data.images, time.perf_counter() - started)
        if figures is not None:
            figures.merge([each.figures for each in shares], validator, matches)
        return report
