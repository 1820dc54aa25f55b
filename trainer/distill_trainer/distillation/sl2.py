"""sl2: squared distance of features, weighted by how sure the teacher is that something is there."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_EPSILON = 1e-9


def sl2(student: Sequence[Tensor], teacher: Sequence[Tensor], logits: Sequence[Tensor]) -> Tensor:
    """Score-weighted L2 distance, summed over levels: sum of w (s - t)^2 / (C sum of w), w = max_c sigmoid(logit_c).

    `student` and `teacher` are features [B, C, H, W] by level, `logits` the teacher's class logits [B, nc, H, W].
    Returns a scalar in fp32 without the distillation weight. The formula is that of ultralytics.nn.distill_model.
    """
    total = torch.zeros((), device=student[0].device)
    for ours, theirs, level_logits in zip(student, teacher, logits, strict=True):
        # The largest sigmoid is the sigmoid of the largest logit: one channel to squash instead of nc.
        weight = level_logits.amax(dim=1).float().sigmoid()
        distance = (ours.float() - theirs).square().sum(dim=1)
        total = total + (distance * weight).sum() / (weight.sum() * ours.shape[1] + _EPSILON)
    return total
