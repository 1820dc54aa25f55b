"""iou: compares the boxes at each location, weighted by the teacher's class scores."""

from __future__ import annotations

import torch
from torch import Tensor
from ultralytics.utils.loss import RotatedBboxLoss
from ultralytics.utils.metrics import bbox_iou, probiou
from ultralytics.utils.tal import dist2rbox

from distill_trainer.training.distillation.features import ModelOutput
from distill_trainer.training.distillation.losses.scores import all_levels, confident, over_branches

FLOOR = RotatedBboxLoss.floor
"""What bounds the gradients of very small oriented boxes, as in the task's own loss."""


def iou(student: ModelOutput, teacher: ModelOutput) -> Tensor:
    """1 - CIoU of both models' boxes, for oriented ones 1 - ProbIoU, weighted by w = max_c sigmoid(logit_c).

    For one branch of the head: sum of w (1 - IoU) over locations with w > 0.05, divided by the sum of their w, at
    least 1. The branches have the weights of the student's task loss, and are summed. Distances instead of their
    distributions are compared, so heads with and without DFL are alike. Returns a scalar in fp32. The localization
    part of Yang et al., ICCV 2023 (arXiv:2308.14286), with CIoU.
    """
    branches = zip(student.boxes, teacher.boxes, teacher.logits, strict=False)
    losses = [_branch(ours, theirs, all_levels(logits).amax(1).sigmoid()) for ours, theirs, logits in branches]
    return over_branches(losses, student.branch_weights)


def _branch(student: Tensor, teacher: Tensor, score: Tensor) -> Tensor:
    """Boxes [B, 4 or 5, N] and the teacher's scores [B, N] -> scalar."""
    weight = confident(score)
    ours, theirs = (boxes.movedim(1, -1) for boxes in (student, teacher))
    return (weight * (1 - _overlap(ours, theirs))).sum() / weight.sum().clamp_min(1.0)


def _overlap(student: Tensor, teacher: Tensor) -> Tensor:
    """Boxes [B, N, 4 or 5], both relative to the location -> [B, N]."""
    if student.shape[-1] == 5:
        images = student.shape[:2]
        return probiou(_oriented(student).flatten(0, 1), _oriented(teacher).flatten(0, 1), floor=FLOOR).view(images)
    return bbox_iou(_corners(student), _corners(teacher), xywh=False, CIoU=True).squeeze(-1)


def _corners(boxes: Tensor) -> Tensor:
    return torch.cat([-boxes[..., :2], boxes[..., 2:]], dim=-1)


def _oriented(boxes: Tensor) -> Tensor:
    distances, angle = boxes.split((4, 1), dim=-1)
    return torch.cat([dist2rbox(distances, angle, torch.zeros(2, device=boxes.device)), angle], dim=-1)
