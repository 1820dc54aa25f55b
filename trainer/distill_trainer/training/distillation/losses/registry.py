"""Distillation losses by the name that a job gives. A new one is a file, a line here, and a name in the spec."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from distill_trainer.training.distillation.features import ModelOutput
from distill_trainer.training.distillation.losses.cwd import cwd
from distill_trainer.training.distillation.losses.logit import logit
from distill_trainer.training.distillation.losses.pkd import pkd
from distill_trainer.training.distillation.losses.sl2 import sl2


@dataclass(frozen=True)
class DistillationLoss:
    """A comparison, and what it needs."""

    compare: Callable[[ModelOutput, ModelOutput], Tensor]
    """(student, teacher) -> scalar, the mean over the batch, without the distillation weight."""
    projects: bool = True
    """Whether it compares features, so that a projector has to map the student's to the teacher's channels."""


LOSSES: Mapping[str, DistillationLoss] = {
    "sl2": DistillationLoss(sl2),
    "cwd": DistillationLoss(cwd),
    "pkd": DistillationLoss(pkd),
    "logit": DistillationLoss(logit, projects=False),
}
