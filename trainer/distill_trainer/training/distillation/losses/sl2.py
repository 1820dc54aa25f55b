"""sl2: squared distance of features, weighted by the teacher's class scores."""

from __future__ import annotations

import torch

from distill_trainer.training.distillation.features import ModelOutput
from distill_trainer.training.distillation.losses.scores import level_scores

_EPSILON = 1e-9


def sl2(student: ModelOutput, teacher: ModelOutput) -> torch.Tensor:
    """Score-weighted L2 distance, summed over levels: sum of w (s - t)^2 / (C sum of w), w = max_c sigmoid(logit_c).

    s are the projected student features, t the teacher's; the logits are the teacher's, averaged over the branches of
    its head. Returns a scalar in fp32 without the distillation weight. The formula is that of
    ultralytics.nn.distill_model.
    """
    total = torch.zeros((), device=student.features[0].device)
    for ours, theirs, *branches in zip(student.features, teacher.features, *teacher.logits, strict=True):
        weight = level_scores(branches)
        distance = (ours.float() - theirs).square().sum(dim=1)
        total = total + (distance * weight).sum() / (weight.sum() * ours.shape[1] + _EPSILON)
    return total
