"""pkd: compares the correlation of each channel of student and teacher."""

from __future__ import annotations

import torch
from torch.nn.functional import mse_loss

from distill_trainer.training.distillation.features import ModelOutput
from distill_trainer.training.distillation.losses.standardize import standardize


def pkd(student: ModelOutput, teacher: ModelOutput) -> torch.Tensor:
    """Half the mean squared distance of standardized features, summed over levels.

    For each channel that is 1 - r, where r is Pearson's correlation over batch and locations of the projected student
    features and the teacher's. Returns a scalar in fp32 without the distillation weight. Cao et al., PKD: General
    Distillation Framework for Object Detectors via Pearson Correlation Coefficient, NeurIPS 2022 (arXiv:2207.02039).
    """
    total = torch.zeros((), device=student.features[0].device)
    for ours, theirs in zip(student.features, teacher.features, strict=True):
        total = total + mse_loss(standardize(ours), standardize(theirs)) / 2
    return total
