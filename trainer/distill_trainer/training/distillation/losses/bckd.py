"""bckd: compares the class scores at each location, as a part of the class loss."""

from __future__ import annotations

from torch import Tensor

from distill_trainer.training.distillation.features import ModelOutput
from distill_trainer.training.distillation.losses.logit import branch_loss
from distill_trainer.training.distillation.losses.scores import over_branches


def bckd(student: ModelOutput, teacher: ModelOutput) -> Tensor:
    """The loss of `logit`, but each branch with the weight that it has in the student's task loss, and summed.

    So it follows the decay of the one-to-many branch of an end-to-end head. Returns a scalar in fp32. Yang et al.,
    Bridging Cross-task Protocol Inconsistency for Distillation in Dense Object Detection, ICCV 2023 (arXiv:2308.14286).
    """
    pairs = zip(student.logits, teacher.logits, strict=False)
    return over_branches([branch_loss(ours, theirs) for ours, theirs in pairs], student.branch_weights)
