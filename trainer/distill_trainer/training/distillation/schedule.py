"""The weight of the distillation loss at every step: a pure function of the job. A new shape is a file and a line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from distill_api.spec.fields import DistillJobSpec
from distill_trainer.training.distillation.schedules.constant import constant
from distill_trainer.training.distillation.schedules.cosine import cosine
from distill_trainer.training.distillation.schedules.until import end_step

Shape = Callable[[float], float]
"""Progress towards the end of distillation, in [0, 1) -> factor of the job's weight."""

SCHEDULES: Mapping[str, Shape] = {"constant": constant, "cosine": cosine, "stop": constant}


@dataclass(frozen=True)
class WeightSchedule:
    """What the distillation loss weighs at each step."""

    weight: float
    """The job's weight."""
    shape: Shape
    end: int
    """First step from which the weight is 0 for good; 0 when nothing is distilled at all."""

    def at(self, step: int) -> float:
        """Weight of step `step`, from 0."""
        return 0.0 if self.over(step) else self.weight * self.shape(step / self.end)

    def over(self, step: int) -> bool:
        """Whether neither this step nor a later one needs the teacher."""
        return step >= self.end


def weight_schedule(spec: DistillJobSpec, steps_per_epoch: int) -> WeightSchedule:
    """The schedule that the job asks for. Without a teacher, or with a weight of 0, it is over before it begins."""
    distillation, training = spec.distillation, spec.training
    distils = spec.teacher is not None and distillation.weight > 0
    end = end_step(
        distillation.until,
        epochs=training.epochs,
        steps_per_epoch=steps_per_epoch,
        close_mosaic=training.close_mosaic,
    )
    return WeightSchedule(distillation.weight, SCHEDULES[distillation.schedule], end if distils else 0)
