"""What a run distils, how, and until when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distill_trainer.training.distillation.schedule import WeightSchedule
from distill_trainer.training.distillation.task import Term
from distill_trainer.training.distillation.terms import ULTRALYTICS


@dataclass(frozen=True)
class DistillationPlan:
    """The settings of a run's distillation; by default Ultralytics'."""

    weight: WeightSchedule
    terms: Sequence[Term] = ULTRALYTICS
    share: float | None = None
    """Share of the task's gradient at the neck that the terms get; None: as much as their weights give."""
    linear: bool = False
    """Whether the projector is linear."""
    teacher_dtype: torch.dtype = torch.float32
    batch_fraction: float = 1.0
    """Part of each shard batch that the teacher sees."""
    labelled: int | None = None
    """Images of a shard batch that have labels, which come first; None: all."""
    neck: Sequence[tuple[Tensor, Tensor]] = ()
    """By level, the student's neck channels that it inherited, and the teacher's channels that they are; empty if the
    projector is to start at random, or is restored.
    """
    min_improvement: float | None = None
    """Distillation ends after an epoch that lowers its loss by less than this part; None: not for that."""
