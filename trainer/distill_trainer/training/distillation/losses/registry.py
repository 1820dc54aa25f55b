"""Distillation losses by name. To add one: a new file, and a line here. Others are found by entry points."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import entry_points
from typing import Final

from torch import Tensor

from distill_api.errors import Permanent
from distill_api.reasons import Reason
from distill_trainer.training.distillation.features import ModelOutput
from distill_trainer.training.distillation.losses.bckd import bckd
from distill_trainer.training.distillation.losses.cwd import cwd
from distill_trainer.training.distillation.losses.iou import iou
from distill_trainer.training.distillation.losses.logit import logit
from distill_trainer.training.distillation.losses.mask import mask
from distill_trainer.training.distillation.losses.oks import oks
from distill_trainer.training.distillation.losses.pkd import pkd
from distill_trainer.training.distillation.losses.sl2 import sl2
from distill_trainer.training.distillation.losses.spkd import spkd

ENTRY_POINTS: Final = "distilljob.losses"
"""Group of the entry points of installed packages that each give a DistillationLoss."""


class Signal(StrEnum):
    """A part of a model's output that a loss compares or is weighted by."""

    NECK = "neck"
    CLASS = "class"
    BOX = "box"
    KEYPOINTS = "keypoints"
    MASK = "mask"


@dataclass(frozen=True)
class DistillationLoss:
    """A distillation loss."""

    compare: Callable[[ModelOutput, ModelOutput], Tensor]
    """(student, teacher) -> scalar: the mean over the batch, without any weight."""
    on: Signal = Signal.NECK
    """What it teaches. Losses on the neck compare projected features."""
    needs: frozenset[Signal] = frozenset()
    """Signals of the teacher besides its neck."""
    weight: float = 1.0
    """Weight of a term that gives none."""
    gain: str | None = None
    """Training argument that the loss is multiplied by, as the part of the task's loss is that it resembles."""


CLASS: Final = frozenset({Signal.CLASS})
LOSSES: Mapping[str, DistillationLoss] = {
    "sl2": DistillationLoss(sl2, needs=CLASS, weight=6.0),
    "cwd": DistillationLoss(cwd),
    "pkd": DistillationLoss(pkd),
    "spkd": DistillationLoss(spkd, needs=CLASS),
    "logit": DistillationLoss(logit, Signal.CLASS, CLASS),
    "bckd": DistillationLoss(bckd, Signal.CLASS, CLASS, gain="cls"),
    "iou": DistillationLoss(iou, Signal.BOX, CLASS | {Signal.BOX}, gain="box"),
    "oks": DistillationLoss(oks, Signal.KEYPOINTS, CLASS | {Signal.BOX, Signal.KEYPOINTS}, gain="pose"),
    "mask": DistillationLoss(mask, Signal.MASK, CLASS | {Signal.BOX, Signal.MASK}, gain="box"),
}


def find(name: str) -> DistillationLoss:
    """The loss of this name, built in or installed. Raises Permanent if there is none or it cannot be loaded."""
    if name in LOSSES:
        return LOSSES[name]
    installed = {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
    if name not in installed:
        known = ", ".join(sorted({*LOSSES, *installed}))
        raise Permanent(Reason.CONFIG_INVALID, f"there is no distillation loss {name}; this image has {known}")
    try:
        found = installed[name].load()
    except Exception as error:
        raise Permanent(Reason.CONFIG_INVALID, f"distillation loss {name} cannot be loaded: {error}") from error
    if not isinstance(found, DistillationLoss):
        value = installed[name].value
        raise Permanent(Reason.CONFIG_INVALID, f"distillation loss {name}: {value} is not a DistillationLoss")
    return found
