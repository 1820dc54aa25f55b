"""What is trained and what DDP replicates: the student and, with a teacher, its projector."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from distill_trainer.distillation.features import head_inputs
from distill_trainer.distillation.losses import DistillationLoss
from distill_trainer.distillation.projector import Projector
from distill_trainer.teacher import TeacherOutput

DISTILLATION_LOSS = "dis_loss"
"""Name of the distillation loss beside Ultralytics' own components, as Ultralytics logs it."""
OBJECTIVE = "objective"
"""Name of the scalar whose gradient is taken."""


class DistillTask(nn.Module):
    """Student, projector and their losses. The teacher's output comes in with the batch, the teacher does not."""

    def __init__(
        self,
        student: Any,
        projector: Projector | None = None,
        distillation_loss: DistillationLoss | None = None,
    ) -> None:
        super().__init__()
        self.student_model = student  # the name that Ultralytics' optimizer rules look for
        self.projector = projector
        self._distillation_loss = distillation_loss

    def forward(
        self, batch: dict[str, Any], teacher: TeacherOutput | None = None, weight: float = 0.0
    ) -> dict[str, Tensor]:
        """Losses of one shard batch whose `img` is [B, 3, H, W] in [0, 1].

        Returns Ultralytics' loss components, detached and per image; `dis_loss`, weight included, when there is a
        teacher; and `objective`, the sum of all times B as in Ultralytics, which alone has a gradient.
        """
        images = batch["img"]
        predictions = self.student_model(images)
        task_loss, components = self.student_model.loss(batch, predictions)
        losses = {name: value.detach() for name, value in components.items()}
        losses[OBJECTIVE] = task_loss.sum()
        if teacher is not None and self.projector is not None and self._distillation_loss is not None:
            projected = self.projector(head_inputs(predictions))
            distillation = weight * self._distillation_loss(projected, teacher.features, teacher.logits)
            losses[DISTILLATION_LOSS] = distillation.detach()
            losses[OBJECTIVE] = losses[OBJECTIVE] + distillation * images.shape[0]
        return losses

    def begin_epoch(self, epoch: int) -> None:
        """Set what Ultralytics' criterion changes from epoch to epoch, as a function of the epoch alone."""
        criterion = self.criterion
        if hasattr(criterion, "update"):
            criterion.updates = epoch - 1
            criterion.update()

    @property
    def criterion(self) -> Any:
        """The student's criterion, made on first use so that it lies on the student's device."""
        if getattr(self.student_model, "criterion", None) is None:
            self.student_model.criterion = self.student_model.init_criterion()
        return self.student_model.criterion

    def trained_parameters(self) -> list[nn.Parameter]:
        """Parameters that have gradients, in a fixed order."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]


def component_names(task: DistillTask) -> list[str]:
    """Names of the losses that `forward` will return, without `objective`, in Ultralytics' order."""
    criterion = task.criterion
    names = list(getattr(criterion, "one2one", criterion).loss_names)
    return [*names, DISTILLATION_LOSS] if task.projector is not None else names
