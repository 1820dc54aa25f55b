"""logit: compares the class scores at each location."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from distill_trainer.training.distillation.features import ModelOutput
from distill_trainer.training.distillation.losses.scores import all_levels


def logit(student: ModelOutput, teacher: ModelOutput) -> Tensor:
    """Binary cross-entropy per class and location, weighted by the distance of the two scores.

    For one branch of the head: sum of |p - q| BCE(p, q) over levels, locations and classes, where p and q are the
    sigmoids of student and teacher, divided by the sum over locations of max_c q_c, at least 1 (the soft number of
    objects, as in Ultralytics' class loss). The result is averaged over the branches that both heads have. Returns a
    scalar in fp32 without the distillation weight. The weighted cross-entropy is the classification part of Yang et
    al., Bridging Cross-task Protocol Inconsistency for Distillation in Dense Object Detection, ICCV 2023
    (arXiv:2308.14286).
    """
    branches = [branch_loss(ours, theirs) for ours, theirs in zip(student.logits, teacher.logits, strict=False)]
    return torch.stack(branches).mean()


def branch_loss(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """The loss of one branch, from both models' class logits by level."""
    ours, theirs = all_levels(student), all_levels(teacher).sigmoid()
    distance = binary_cross_entropy_with_logits(ours, theirs, reduction="none")
    weighted = (ours.sigmoid() - theirs).abs() * distance
    return weighted.sum() / theirs.amax(dim=1).sum().clamp_min(1.0)
