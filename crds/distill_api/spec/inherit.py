"""spec.student.inherit: how the student takes its first weights from the teacher."""

from typing import Literal

from distill_api.base import Model

Init = Literal["default", "inherit"]


class Inherit(Model):
    """Which of the teacher's channels a narrower student takes, if student.init is inherit."""

    channels: Literal["index", "importance"] = "index"
    """index: evenly spaced ones, in the teacher's order. importance: those with the largest BatchNorm scales. Attention
    heads are taken whole."""
