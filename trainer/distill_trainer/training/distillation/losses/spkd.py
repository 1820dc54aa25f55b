"""spkd: compares the correlation of each channel of student and teacher where the teacher sees something."""

from __future__ import annotations

import torch
from torch import Tensor

from distill_trainer.training.distillation.features import ModelOutput
from distill_trainer.training.distillation.losses.scores import level_scores

_EPSILON = 1e-5
"""Added to each variance, as in a BatchNorm, and to the covariance, so that equal channels correlate wholly."""


def spkd(student: ModelOutput, teacher: ModelOutput) -> Tensor:
    """Mean over channels of 1 - r, summed over levels; between 0 and 2 a level, whatever the scale of the features.

    r is Pearson's correlation over batch and locations of the projected student features and the teacher's, with all
    moments weighted by max_c sigmoid(logit_c), the teacher's scores averaged over the branches of its head. Returns a
    scalar in fp32. PKD (arXiv:2207.02039) with the weights of sl2.
    """
    total = torch.zeros((), device=student.features[0].device)
    for ours, theirs, *branches in zip(student.features, teacher.features, *teacher.logits, strict=True):
        weight = level_scores(branches).flatten()
        weight = weight / weight.sum().clamp_min(1e-9)
        x, y = (_centered(feature, weight) for feature in (ours, theirs))
        covariance = (weight * x * y).sum(1)
        spread = ((weight * x.square()).sum(1) + _EPSILON) * ((weight * y.square()).sum(1) + _EPSILON)
        total = total + (1 - (covariance + _EPSILON) / spread.sqrt()).mean()
    return total


def _centered(feature: Tensor, weight: Tensor) -> Tensor:
    """[B, C, H, W] -> [C, B H W], minus each channel's weighted mean."""
    flat = feature.float().transpose(0, 1).flatten(1)
    return flat - (weight * flat).sum(1, keepdim=True)
