"""The weight of the distillation loss at every step, as a pure function of the job."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from distill_api.spec.fields import DistillJobSpec, Until

Shape = Callable[[float], float]
"""Progress towards the end of distillation, in [0, 1) -> factor of the job's weight."""


def constant(_progress: float) -> float:
    """The same weight until distillation ends."""
    return 1.0


def cosine(progress: float) -> float:
    """Half a cosine period, from 1 to 0."""
    return (1 + math.cos(math.pi * progress)) / 2


SCHEDULES: Mapping[str, Shape] = {"constant": constant, "cosine": cosine, "stop": constant}


@dataclass(frozen=True)
class WeightSchedule:
    """The weight of the distillation loss at each step."""

    weight: float
    """The job's weight; 1 if its terms have their own."""
    shape: Shape
    end: int
    """First step from which the weight stays 0; 0 if nothing is distilled."""

    def at(self, step: int) -> float:
        """Weight at a step, from 0."""
        return 0.0 if self.over(step) else self.weight * self.shape(step / self.end)

    def over(self, step: int) -> bool:
        """Whether distillation has ended, so that this and later steps do not need the teacher."""
        return step >= self.end


def weight_schedule(spec: DistillJobSpec, steps_per_epoch: int) -> WeightSchedule:
    """The schedule of a job. Without a teacher, or with a weight of 0, it ends at step 0."""
    distillation, training = spec.distillation, spec.training
    weight = 1.0 if distillation.terms else distillation.weight
    distils = spec.teacher is not None and weight > 0
    end = end_step(
        distillation.until,
        epochs=training.epochs,
        steps_per_epoch=steps_per_epoch,
        close_mosaic=training.close_mosaic,
    )
    return WeightSchedule(weight, SCHEDULES[distillation.schedule], end if distils else 0)


def end_step(until: Until | None, *, epochs: int, steps_per_epoch: int, close_mosaic: int) -> int:
    """First step, from 0, that is trained without the teacher; the end of the run if `until` names no time.

    `close_mosaic`: number of final epochs without mosaic. A fraction is rounded to the nearest step, at least one.
    """
    total = epochs * steps_per_epoch
    if until is None:
        return total
    if until.epochs is not None:
        return min(until.epochs * steps_per_epoch, total)
    if until.fraction is not None:
        return max(1, round(until.fraction * total))
    return (epochs - close_mosaic) * steps_per_epoch if until.close_mosaic else total
