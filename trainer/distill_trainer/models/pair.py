"""Whether a student can learn from a teacher: a pure comparison of a few facts about each.

Ultralytics accepts most of these pairs silently, or fails in the first step.
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
"""Heads that distillation understands: those that inherit Detect's branches and have a fixed set of classes."""

_YOLOV9 = dict.fromkeys(("ELAN1", "AConv", "ADown", "CBLinear", "CBFuse", "Identity"), "RepNCSPELAN4")
"""Layers that one size of YOLOv9 has and another has not; they tell no families apart."""


@dataclass(frozen=True)
class ModelFacts:
    """What the comparison needs to know of a model."""

    name: str
    """File name, for messages."""
    task: str
    head: str
    """Class of the last layer."""
    family: frozenset[str]
    """Fingerprint: the layer types, and how the head regresses boxes."""
    names: tuple[str, ...]
    """Class names in order of their number."""
    channels: int
    """Channels of the images that it takes."""
    strides: tuple[int, ...]
    """Pixels per feature cell, by level."""
    fused: bool
    """Whether a fused end-to-end head lost the branch that is distilled."""
    normalises: bool = True
    """Whether BatchNorm is there to be trained; fusing for inference takes it away."""


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
        normalises=any(isinstance(module, nn.BatchNorm2d) for module in model.modules()),
    )


def _kind(layer: nn.Module) -> str:
    name = type(layer).__name__
    return _YOLOV9.get(name, name)


def mismatches(student: ModelFacts, teacher: ModelFacts, allow_cross_family: bool = False) -> list[str]:
    """Every reason why this pair cannot train, each a sentence that says what to change. Empty: it can."""
    unsupported = [reason for model in (student, teacher) if (reason := _unsupported_head(model))]
    if unsupported:  # nothing else about such a model can be compared
        return unsupported
    rules = [rule for rule in _RULES if rule is not _family or not allow_cross_family]
    return [reason for rule in rules if (reason := rule(student, teacher))]


def check(student: ModelFacts, teacher: ModelFacts, allow_cross_family: bool = False) -> None:
    """Raise Permanent(PairMismatch) with every reason of `mismatches`. Crossing families is said to be experimental."""
    if reasons := mismatches(student, teacher, allow_cross_family):
        raise Permanent(Reason.PAIR_MISMATCH, "; ".join(reasons))
    if _family(student, teacher) is not None:
        log.warning(
            "EXPERIMENTAL: teacher %s and student %s are of different model families; their features have the same "
            "levels and strides, so they are compared because distillation.allowCrossFamily is true",
            teacher.name,
            student.name,
        )


def check_trainable(model: ModelFacts) -> None:
    """Raise Permanent(ModelInvalid) for a model that cannot be trained here at all."""
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
    return f"teacher {teacher.name} does task {teacher.task} but student {student.name} does {student.task}"


def _fused(model: ModelFacts) -> str | None:
    if not model.fused:
        return None
    return (
        f"{model.name} was fused for inference and has lost its one-to-many branch; "
        "give the checkpoint as training wrote it"
    )


def _without_batchnorm(model: ModelFacts) -> str | None:
    if model.normalises:
        return None
    return (
        f"{model.name} was fused for inference and has no BatchNorm left to train; "
        "give the checkpoint as training wrote it"
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
        what = f"{len(teacher.names)} classes, the data set has {len(student.names)}"
    else:
        number, ours, theirs = next(
            (i, ours, theirs)
            for i, (ours, theirs) in enumerate(zip(student.names, teacher.names, strict=True))
            if ours != theirs
        )
        what = f"class {number} named {theirs!r}, the data set {ours!r}"
    return f"teacher {teacher.name} has {what}; train the teacher on the student's data set"


def _channels(student: ModelFacts, teacher: ModelFacts) -> str | None:
    if student.channels == teacher.channels:
        return None
    return (
        f"teacher {teacher.name} takes images of {teacher.channels} channels, student {student.name} of "
        f"{student.channels}"
    )


def _levels(student: ModelFacts, teacher: ModelFacts) -> str | None:
    if len(student.strides) == len(teacher.strides):
        return None
    return (
        f"teacher {teacher.name} has {len(teacher.strides)} feature levels, student {student.name} has "
        f"{len(student.strides)}; choose architectures with the same levels"
    )


def _strides(student: ModelFacts, teacher: ModelFacts) -> str | None:
    if student.strides == teacher.strides or len(student.strides) != len(teacher.strides):
        return None
    return (
        f"teacher {teacher.name} has strides {_list(teacher.strides)}, student {student.name} has "
        f"{_list(student.strides)}; their feature maps differ in size"
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
