"""The module that DDP wraps: the student and, while features are distilled, its projector."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from distill_trainer.training.distillation.balance import Balance
from distill_trainer.training.distillation.features import ModelOutput, PoseShape, model_output
from distill_trainer.training.distillation.losses.registry import DistillationLoss, Signal
from distill_trainer.training.distillation.projector import Projector

DISTILLATION_LOSS = "dis_loss"
"""Name of the distillation loss among the loss components, as in Ultralytics."""
OBJECTIVE = "objective"
"""Name of the scalar on which backward() is called."""


@dataclass(frozen=True)
class Term:
    """A distillation loss with its weight in the sum of all."""

    loss: DistillationLoss
    weight: float = 1.0
    name: str | None = None
    """Name of the loss component that has this term alone; None for none."""

    @property
    def on_neck(self) -> bool:
        """Whether it compares projected features."""
        return self.loss.on == Signal.NECK


class DistillTask(nn.Module):
    """Student, projector and losses. It gets the teacher's output with each batch but does not hold the teacher."""

    def __init__(
        self,
        student: Any,
        projector: Projector | None = None,
        terms: Sequence[Term] = (),
        balance: Balance | None = None,
        labelled: int | None = None,
    ) -> None:
        """`balance`: weighs the terms on the neck by their gradient instead of by the weight of `forward`. `labelled`:
        images at the beginning of each batch that have labels; the task's loss sees no others. None: all.
        """
        super().__init__()
        self.student_model = student  # Ultralytics' build_optimizer looks for this name
        self.projector = projector
        self.terms = tuple(terms)
        self.balance = balance
        self.labelled = labelled
        self._boxes = any(term.loss.on == Signal.BOX for term in terms)
        self._keypoints = any(term.loss.on == Signal.KEYPOINTS for term in terms)
        self._masks = any(term.loss.on == Signal.MASK for term in terms)

    def forward(
        self, batch: dict[str, Any], teacher: ModelOutput | None = None, weight: float = 0.0
    ) -> dict[str, Tensor]:
        """Compute the losses of one shard batch whose `img` is [B, 3, H, W] in [0, 1], or [B + U, 3, H, W] with U
        images without labels behind the others.

        The losses compare the last T images if the teacher's output has T.
        Returns Ultralytics' loss components, detached and per image; `dis_loss`, including its weight, and each named
        term, if there are terms (0 without a teacher); and `objective`, the sum of all times B as in Ultralytics, the
        only value with a gradient.
        """
        if teacher is None and self.labelled is not None:  # loaded before it was known that distillation ends
            batch = self._beginning(batch, self.labelled)
        images = batch["img"]
        balance = self.balance if teacher is not None else None
        with balance.between(self.student_model.model[-1]) if balance is not None else nullcontext():
            predictions = self.student_model(images)
        size = images.shape[0] if self.labelled is None else self.labelled
        if size < images.shape[0]:
            batch, labelled = self._beginning(batch, size), _part(predictions, slice(size))
        else:
            labelled = predictions
        task_loss, components = self.student_model.loss(batch, labelled)
        losses = {name: value.detach() for name, value in components.items()}
        losses[OBJECTIVE] = task_loss.sum()
        if not self.terms:
            return losses
        if teacher is None:
            return losses | {name: torch.zeros((), device=images.device) for name in self.distillation_names}
        teacher = teacher.synchronize()
        seen = teacher.features[0].shape[0]
        student = self._student_output(predictions, slice(-seen, None) if seen < images.shape[0] else None)
        values = [self._value(term, student, teacher, weight) for term in self.terms]
        distillation = sum(values[1:], start=values[0])
        losses |= {term.name: value.detach() for term, value in zip(self.terms, values, strict=True) if term.name}
        losses[DISTILLATION_LOSS] = distillation.detach()
        losses[OBJECTIVE] = losses[OBJECTIVE] + distillation * size
        return losses

    @property
    def distillation_names(self) -> list[str]:
        """Names of the distillation loss and of its named terms among the loss components."""
        return [DISTILLATION_LOSS, *(term.name for term in self.terms if term.name)] if self.terms else []

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

    def _beginning(self, batch: dict[str, Any], images: int) -> dict[str, Any]:
        """The batch without the images behind the first ones, which have no labels."""
        per_image = {"img", "sem_masks", *(["masks"] if self.student_model.args.overlap_mask else [])}
        return {key: value[:images] if key in per_image else value for key, value in batch.items()}

    def _student_output(self, predictions: dict[str, Any], images: slice | None) -> ModelOutput:
        """What the losses compare, of all images or of some."""
        pose = PoseShape.of(self.student_model.model[-1]) if self._keypoints else None
        student = model_output(_part(predictions, images), boxes=self._boxes, pose=pose, masks=self._masks)
        criterion = self.criterion
        dual = hasattr(criterion, "o2m")
        if pose is not None:
            student = student._replace(sigmas=getattr(criterion, "one2many", criterion).keypoint_loss.sigmas)
        student = student._replace(branch_weights=(criterion.o2m, criterion.o2o) if dual else (1.0,))
        if self.projector is None:
            return student
        features = _part(self.balance.features, images) if self.balance is not None else student.features
        return student._replace(features=self.projector(features))

    def _value(self, term: Term, student: ModelOutput, teacher: ModelOutput, weight: float) -> Tensor:
        value = term.loss.compare(student, teacher)
        if term.loss.gain is not None:
            value = value * getattr(self.student_model.args, term.loss.gain)
        if term.weight != 1.0:
            value = value * term.weight
        return value if self.balance is not None and term.on_neck else weight * value


def component_names(task: DistillTask) -> list[str]:
    """Names of the losses that `forward` returns, except `objective`, in Ultralytics' order."""
    criterion = task.criterion
    names = list(getattr(criterion, "one2one", criterion).loss_names)
    return [*names, *task.distillation_names]


def _part(predictions: Any, images: slice | None) -> Any:
    """Raw predictions, of any nesting, for some images of a batch; None: for all."""
    if images is None:
        return predictions
    if isinstance(predictions, dict):
        return {key: _part(value, images) for key, value in predictions.items()}
    if isinstance(predictions, (list, tuple)):
        return type(predictions)(_part(value, images) for value in predictions)
    return predictions[images]
