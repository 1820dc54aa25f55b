"""spec.student.inherit: how the student takes its first weights from the teacher."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from distill_api.base import Model
from distill_api.spec.rules.rule import Rule, check

Init = Literal["default", "inherit"]


def _activations_have_images(inherit: "Inherit") -> bool:
    return inherit.channels != "activations" or inherit.images > 0


INHERIT: Sequence[Rule] = (
    Rule(
        "self.channels != 'activations' || self.images > 0",
        "student.inherit.channels: activations are measured on images; set student.inherit.images, or channels to"
        " index or importance",
        _activations_have_images,
    ),
)


class Inherit(Model):
    """Which of the teacher's channels a narrower student takes, if student.init is inherit, and what becomes of their
    weights."""

    channels: Literal["activations", "index", "importance"] = "activations"
    """activations: those that tell most about the others, on training images. index: evenly spaced ones, in the
    teacher's order. importance: those with the largest BatchNorm scales. Attention heads are taken whole."""
    images: Annotated[int, Field(ge=0)] = 64
    """Training images on which the student's weights are fitted, layer by layer, to give what the teacher's layers
    give. Of images with more than 640 pixels a side fewer are used. 0: the weights are copied only."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        return check(self, INHERIT)
