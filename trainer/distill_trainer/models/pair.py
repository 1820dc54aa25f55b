"""Checks that a student can learn from a teacher, by comparing a few facts about each model. Pure functions.

Ultralytics would silently accept most pairs that are rejected here, or fail in the first step.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from distill_api.errors import Permanent
from distill_api.reasons import Reason

log = logging.getLogger(__name__)

HEADS = frozenset({"Detect", "v10Detect", "Segment", "Segment26", "Pose", "Pose26", "OBB", "OBB26"})
"""Supported heads: those that inherit Detect's branches and have a fixed set of classes."""

_YOLOV9 = dict.fromkeys(("ELAN1", "AConv", "ADown", "CBLinear", "CBFuse", "Identity"), "RepNCSPELAN4")
"""Layers that only some sizes of YOLOv9 have; they do not distinguish model families."""


@dataclass(frozen=True)
class ModelFacts:
    """The facts about a model that are compared."""

    name: str
    """File name, for error messages."""
    task: str
    head: str
    """Class of the last layer."""
    family: frozenset[str]
    """The layer types, and how the head regresses boxes."""
    names: tuple[str, ...]
    """Class names by number."""
    channels: int
    """Channels of the input images."""
    strides: tuple[int, ...]
    """Pixels per feature cell, by level."""
    fused: bool
    """Whether an end-to-end head was fused, which removes the branch that is distilled."""
    has_batchnorm: bool = True
    """Whether the model has BatchNorm layers; fusing for inference removes them."""


def facts(model: Any, name: str) -> ModelFacts:
    """Read the facts from an Ultralytics model."""
    head = model.model[-1]
    regression = f"reg_max={getattr(head, 'reg_max', None)}"
    return ModelFacts(
        name=name,
        task=str(getattr(model, "task", "")),
        head=type(head).__name__,
        family=frozenset({_kind(layer) for layer in model.model[:-1]} | {regression}),
        names=tuple(str(model.names[key]) for key in sorted(model.names)),
        channels=int(model.yaml.get("channels", 3)),
        strides=tuple(int(stride) for stride in model.stride),
        fused=getattr(head, "cv2", ...) is None or getattr(head, "cv3", ...) is None,
        has_batchnorm=any(isinstance(module, nn.BatchNorm2d) for module in model.modules()),
    )


def _kind(layer: nn.Module) -> str:
    name = type(layer).__name__
    return _YOLOV9.get(name, name)


def mismatches(student: ModelFacts, teacher: ModelFacts, allow_cross_family: bool = False) -> list[str]:
    """All reasons why this pair cannot be used, each with what to change. Empty if it can."""
    unsupported = [reason for model in (student, teacher) if (reason := _unsupported_head(model))]
    if unsupported:  # the other facts of such a model cannot be compared
        return unsupported
    rules = [rule for rule in _RULES if rule is not _family or not allow_cross_family]
    return [reason for rule in rules if (reason := rule(student, teacher))]


def check(student: ModelFacts, teacher: ModelFacts, allow_cross_family: bool = False) -> None:
    """Raise Permanent(PairMismatch) with all `mismatches`. Logs a warning if the model families differ."""
    if reasons := mismatches(student, teacher, allow_cross_family):
        raise Permanent(Reason.PAIR_MISMATCH, "; ".join(reasons))
    if _family(student, teacher) is not None:
        log.warning(
            "EXPERIMENTAL: teacher %s and student %s are of different model families; they are used because "
            "distillation.allowCrossFamily is true and their features have the same levels and strides",
            teacher.name,
            student.name,
        )


def check_trainable(model: ModelFacts) -> None:
    """Raise Permanent(ModelInvalid) if the model cannot be trained."""
    reason = _unsupported_head(model) or _fused(model) or _without_batchnorm(model)
    if reason:
        raise Permanent(Reason.MODEL_INVALID, reason)


def _unsupported_head(model: ModelFacts) -> str | None:
    if model.head in HEADS:
        return None
    return (
        f"{model.name} has a {model.head} head (task {model.task}); distillation needs a detect, segment, pose "
        "or obb model of YOLOv5u, v8, v9, v10, 11, 12 or 26"
    )


def _task(student: ModelFacts, teacher: ModelFacts) -> str | None:
    if student.task == teacher.task:
        return None
    return (
        f"teacher {teacher.name} is a {teacher.task} model, but student {student.name} is a {student.task} model; "
        "choose a teacher with the student's task"
    )


def _fused(model: ModelFacts) -> str | None:
    if not model.fused:
        return None
    return (
        f"{model.name} was fused for inference, which removes its one-to-many branch; "
        "use the checkpoint that training wrote"
    )


def _without_batchnorm(model: ModelFacts) -> str | None:
    if model.has_batchnorm:
        return None
    return (
        f"{model.name} was fused for inference, which removes its BatchNorm layers; "
        "use the checkpoint that training wrote"
    )


def _family(student: ModelFacts, teacher: ModelFacts) -> str | None:
    if student.family == teacher.family:
        return None
    differing = ", ".join(sorted(student.family ^ teacher.family))
    return (
        f"teacher {teacher.name} and student {student.name} are of different model families (they differ in "
        f"{differing}); choose a teacher of the student's family or set distillation.allowCrossFamily: true"
    )


def _classes(student: ModelFacts, teacher: ModelFacts) -> str | None:
    if student.names == teacher.names:
        return None
    if len(student.names) != len(teacher.names):
        what = f"{len(teacher.names)} classes, but the data set has {len(student.names)}"
    else:
        number, ours, theirs = next(
            (i, ours, theirs)
            for i, (ours, theirs) in enumerate(zip(student.names, teacher.names, strict=True))
            if ours != theirs
        )
        what = f"class {number} named {theirs!r}, but the data set has {ours!r}"
    return (
        f"teacher {teacher.name} has {what}; correct the names in the data set's YAML file, or use a teacher that was "
        "trained on these classes"
    )


def _channels(student: ModelFacts, teacher: ModelFacts) -> str | None:
    if student.channels == teacher.channels:
        return None
    return (
        f"teacher {teacher.name} takes images with {teacher.channels} channels, but student {student.name} takes "
        f"{student.channels}; train the teacher on the student's data set"
    )


def _levels(student: ModelFacts, teacher: ModelFacts) -> str | None:
    if len(student.strides) == len(teacher.strides):
        return None
    return (
        f"teacher {teacher.name} has {len(teacher.strides)} feature levels, but student {student.name} has "
        f"{len(student.strides)}; choose architectures with the same levels"
    )


def _strides(student: ModelFacts, teacher: ModelFacts) -> str | None:
    if student.strides == teacher.strides or len(student.strides) != len(teacher.strides):
        return None
    return (
        f"teacher {teacher.name} has strides {_list(teacher.strides)}, but student {student.name} has "
        f"{_list(student.strides)}; choose architectures with the same strides"
    )


def _list(numbers: Sequence[int]) -> str:
    return "/".join(map(str, numbers))


_RULES: Sequence[Callable[[ModelFacts, ModelFacts], str | None]] = (
    _task,
    _family,
    lambda _student, teacher: _fused(teacher),
    _classes,
    _channels,
    _levels,
    _strides,
)
