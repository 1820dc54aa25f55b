"""Distillation losses by name. To add one: a new file, a line here, and its name in the spec."""

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
    """A distillation loss."""

    compare: Callable[[ModelOutput, ModelOutput], Tensor]
    """(student, teacher) -> scalar: the mean over the batch, without the distillation weight."""
    projects: bool = True
    """Whether it compares features and needs a projector."""


LOSSES: Mapping[str, DistillationLoss] = {
    "sl2": DistillationLoss(sl2),
    "cwd": DistillationLoss(cwd),
    "pkd": DistillationLoss(pkd),
    "logit": DistillationLoss(logit, projects=False),
}
