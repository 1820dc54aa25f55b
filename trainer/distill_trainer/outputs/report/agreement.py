"""How far detections of two models agree, and which images show it best. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from ultralytics.utils.metrics import batch_probiou, box_iou

from distill_trainer.outputs.report.report import ModelRole

MIN_IOU = 0.5
"""Overlap from which two boxes of one class are the same object."""


@dataclass(frozen=True, eq=False)
class Detections:
    """What a model finds in an image."""

    boxes: Tensor
    """[N, 4]: x1, y1, x2, y2; or [N, 5] if oriented: x, y, width, height, angle. In pixels."""
    classes: Tensor
    """[N]"""
    corners: Tensor
    """[N, 4, 2]: the corners of each box, relative to the image."""

    def __len__(self) -> int:
        return len(self.classes)


def matches(ours: Detections, theirs: Detections) -> tuple[set[int], set[int]]:
    """The indices, in each, of objects that both find: one class and an IoU of at least `MIN_IOU`.

    Each detection is in at most one pair; pairs of larger IoU come first.
    """
    iou = batch_probiou if ours.boxes.shape[-1] == 5 else box_iou
    overlap = iou(ours.boxes, theirs.boxes) * (ours.classes[:, None] == theirs.classes[None])
    rows, columns = torch.nonzero(overlap >= MIN_IOU, as_tuple=True)
    mine: set[int] = set()
    other: set[int] = set()
    for index in overlap[rows, columns].argsort(descending=True, stable=True).tolist():
        row, column = int(rows[index]), int(columns[index])
        if row not in mine and column not in other:
            mine.add(row)
            other.add(column)
    return mine, other


def agreement(ours: Detections, theirs: Detections) -> float | None:
    """The share of all detections that are in both (their F1), from 0 to 1; None if both find nothing."""
    if not len(ours) + len(theirs):
        return None
    return 2 * len(matches(ours, theirs)[0]) / (len(ours) + len(theirs))


@dataclass(frozen=True, eq=False)
class Compared:
    """What the models find in one image."""

    image: str
    """Its path."""
    found: Mapping[ModelRole, Detections]
    """By role; student and teacher always."""

    def with_teacher(self, role: ModelRole) -> float | None:
        """How far a model agrees with the teacher."""
        return agreement(self.found[role], self.found["teacher"])


def choose(compared: Sequence[Compared], most: int) -> tuple[list[Compared], list[Compared]]:
    """At most `most` images in which the student agrees with the teacher, and as many others in which it does not.

    With a baseline the former are those in which the student agrees more than the baseline does, by the difference;
    without one, those in which it agrees most. Of equal images, those with more objects come first.
    """
    agreeing: list[tuple[float, int, Compared]] = []
    differing: list[tuple[float, int, Compared]] = []
    for image in compared:
        student = image.with_teacher("student")
        if student is None:
            continue
        baseline = image.with_teacher("baseline") if "baseline" in image.found else None
        better = student - (baseline or 0.0) if "baseline" in image.found else student
        objects = len(image.found["teacher"])
        if student > MIN_IOU and better > 0:
            agreeing.append((-better, -objects, image))
        if student < 1:
            differing.append((student, -objects, image))
    agrees = _first(agreeing, most)
    return agrees, _first([item for item in differing if item[2] not in agrees], most)


def mean_agreement(compared: Sequence[Compared], role: ModelRole) -> float | None:
    """Mean agreement of a model with the teacher over images in which at least one of them finds something."""
    values = [value for image in compared if (value := image.with_teacher(role)) is not None]
    return sum(values) / len(values) if values else None


def _first(ranked: list[tuple[float, int, Compared]], most: int) -> list[Compared]:
    return [image for _, _, image in sorted(ranked, key=lambda item: item[:2])[:most]]
