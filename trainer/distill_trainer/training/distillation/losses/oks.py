"""oks: compares the keypoints at each location, weighted by the teacher's class scores."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from distill_trainer.training.distillation.features import Keypoints, ModelOutput
from distill_trainer.training.distillation.losses.scores import all_levels, confident, over_branches


def oks(student: ModelOutput, teacher: ModelOutput) -> Tensor:
    """1 - the object keypoint similarity of both models' keypoints, weighted by w = max_c sigmoid(logit_c).

    For one branch of the head: sum of w v (1 - exp(-e)) over locations with w > 0.05 and their K keypoints, divided by
    K times the sum of w, at least 1; v is the teacher's sigmoid of a keypoint's visibility, 1 where it has none, and
    e = d^2 / (8 sigma^2 area) with the distance of both keypoints and the area of the teacher's box, as in Ultralytics'
    KeypointLoss. Branches have the weights of the student's task loss, and are summed. Returns a scalar in fp32.
    """
    sigmas = student.sigmas
    assert sigmas is not None
    parts = zip(student.keypoints, teacher.keypoints, teacher.boxes, teacher.logits, strict=False)
    losses = [_branch(*one, sigmas) for one in parts]
    return over_branches(losses, student.branch_weights)


def _branch(student: Keypoints, teacher: Keypoints, boxes: Tensor, logits: Sequence[Tensor], sigmas: Tensor) -> Tensor:
    """Places [B, K, 2, N], the teacher's boxes [B, 4, N] and scores by level -> scalar."""
    weight = confident(all_levels(logits).amax(1).sigmoid()).unsqueeze(1)
    left, top, right, bottom = boxes.unbind(1)
    area = ((left + right) * (top + bottom)).clamp_min(1e-9).unsqueeze(1)
    distance = (student.places - teacher.places).square().sum(2)
    dissimilar = 1 - torch.exp(-distance / (8 * sigmas.view(1, -1, 1).square() * area))
    if teacher.visible is not None:
        dissimilar = dissimilar * teacher.visible.sigmoid()
    return (weight * dissimilar).sum() / (len(sigmas) * weight.sum().clamp_min(1.0))
