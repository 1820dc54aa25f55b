"""Distillation losses by the name that a job gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from distill_trainer.distillation.sl2 import sl2

DistillationLoss = Callable[[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]], Tensor]
"""(projected student features, teacher features, teacher class logits), each by level -> scalar."""

LOSSES: Mapping[str, DistillationLoss] = {"sl2": sl2}
