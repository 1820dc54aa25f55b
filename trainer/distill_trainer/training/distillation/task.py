"""The module that DDP wraps: the student and, while features are distilled, its projector."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from distill_trainer.training.distillation.features import ModelOutput, model_output
from distill_trainer.training.distillation.losses.registry import DistillationLoss
from distill_trainer.training.distillation.projector import Projector

DISTILLATION_LOSS = "dis_loss"
"""Name of the distillation loss among the loss components, as in Ultralytics."""
OBJECTIVE = "objective"
"""Name of the scalar on which backward() is called."""


class DistillTask(nn.Module):
    """Student, projector and losses. It gets the teacher's output with each batch but does not hold the teacher."""

    def __init__(
        self,
        student: Any,
        projector: Projector | None = None,
        distillation_loss: DistillationLoss | None = None,
    ) -> None:
        super().__init__()
        self.student_model = student  # Ultralytics' build_optimizer looks for this name
        self.projector = projector
        self.distillation_loss = distillation_loss

    def forward(
        self, batch: dict[str, Any], teacher: ModelOutput | None = None, weight: float = 0.0
    ) -> dict[str, Tensor]:
        """Compute the losses of one shard batch whose `img` is [B, 3, H, W] in [0, 1].

        Returns Ultralytics' loss components, detached and per image; `dis_loss`, including its weight, if there is a
        distillation loss (0 without a teacher); and `objective`, the sum of all times B as in Ultralytics, the only
        value with a gradient.
        """
        images = batch["img"]
        predictions = self.student_model(images)
        task_loss, components = self.student_model.loss(batch, predictions)
        losses = {name: value.detach() for name, value in components.items()}
        losses[OBJECTIVE] = task_loss.sum()
        if self.distillation_loss is None:
            return losses
        if teacher is None:
            return losses | {DISTILLATION_LOSS: torch.zeros((), device=images.device)}
        student = model_output(predictions)
        if self.projector is not None:
            student = student._replace(features=self.projector(student.features))
        distillation = weight * self.distillation_loss.compare(student, teacher.synchronize())
        losses[DISTILLATION_LOSS] = distillation.detach()
        losses[OBJECTIVE] = losses[OBJECTIVE] + distillation * images.shape[0]
        return losses

    def begin_epoch(self, epoch: int) -> None:
        """Set the epoch (from 0) of Ultralytics' criterion."""
        criterion = self.criterion
        if hasattr(criterion, "update"):
            criterion.updates = epoch - 1
            criterion.update()

    @property
    def criterion(self) -> Any:
        """The student's criterion, created on first use on the student's device."""
        if getattr(self.student_model, "criterion", None) is None:
            self.student_model.criterion = self.student_model.init_criterion()
        return self.student_model.criterion

    def trained_parameters(self) -> list[nn.Parameter]:
        """Parameters with gradients, in a fixed order."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]


def component_names(task: DistillTask) -> list[str]:
    """Names of the losses that `forward` returns, except `objective`, in Ultralytics' order."""
    criterion = task.criterion
    names = list(getattr(criterion, "one2one", criterion).loss_names)
    return [*names, DISTILLATION_LOSS] if task.distillation_loss is not None else names
