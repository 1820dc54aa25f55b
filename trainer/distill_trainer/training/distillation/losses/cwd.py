"""cwd: compares the distribution of each channel over locations."""

from __future__ import annotations

import torch
from torch.nn.functional import kl_div, log_softmax

from distill_trainer.training.distillation.features import ModelOutput
from distill_trainer.training.distillation.losses.standardize import standardize

TEMPERATURE = 1.0
"""As in RTMDet's distillation; higher temperatures flatten the distributions."""


def cwd(student: ModelOutput, teacher: ModelOutput, temperature: float = TEMPERATURE) -> torch.Tensor:
    """Channel-wise distillation, summed over levels: T^2 / (B C) sum of KL(softmax(t / T) || softmax(s / T)).

    Both softmaxes run over the locations of one channel of one image. s and t are the projected student features and
    the teacher's, each standardized per channel. Returns a scalar in fp32 without the distillation weight.
    Shu et al., Channel-wise Knowledge Distillation for Dense Prediction, ICCV 2021 (arXiv:2011.13256), with the
    normalization of RTMDet's distillation (a BatchNorm without weights and running statistics on both sides; MMYOLO
    configs/rtmdet/distillation).
    """
    total = torch.zeros((), device=student.features[0].device)
    for ours, theirs in zip(student.features, teacher.features, strict=True):
        ours_log, theirs_log = (
            log_softmax(standardize(feature).flatten(0, 1).flatten(1) / temperature, dim=1)
            for feature in (ours, theirs)
        )
        total = total + temperature**2 * kl_div(ours_log, theirs_log, reduction="batchmean", log_target=True)
    return total
