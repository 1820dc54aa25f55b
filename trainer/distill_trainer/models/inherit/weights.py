"""Copies a slice of the teacher's weights into the student, and says what was copied."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from distill_api.reading.mistakes import listed
from distill_trainer.models.inherit.activations import Fitted, Progress, covariances, fit, no_progress
from distill_trainer.models.inherit.blocks import BLOCKS
from distill_trainer.models.inherit.channels import Channels, Choose, NotSliceable, channels, positions
from distill_trainer.models.inherit.heads import HEADS
from distill_trainer.models.inherit.selection import chooser
from distill_trainer.models.inherit.trace import Slice, Trace

_MAX_LISTED = 8
"""Most names of modules in a line of the log."""
_PROBE = 64
"""Side of the image, in pixels, that shows the width of a layer that has no rule."""


@dataclass(frozen=True)
class Inherited:
    """What a student inherited."""

    parameters: int
    """Parameters that are the teacher's."""
    of_parameters: int
    tensors: int
    """Parameter tensors of which at least a part is the teacher's."""
    of_tensors: int
    in_part: int
    """Of these, tensors that are only partly the teacher's, because the student is wider there or has other blocks."""
    left: dict[str, str]
    """Modules and tensors that were left as they were initialized, with the reason."""
    neck: tuple[tuple[Tensor, Tensor], ...]
    """For each input of the head: the student's channels, and the teacher's channels that they are. Empty if they were
    not chosen yet.
    """
    fitted: Fitted | None = None
    """How well the weights were fitted to the teacher's activations; None if they were only copied."""

    @property
    def share(self) -> float:
        """Share of the student's parameters, from 0 to 1."""
        return self.parameters / max(self.of_parameters, 1)

    def reasons(self) -> dict[str, list[str]]:
        """What was left as it was initialized, by reason."""
        by_reason: dict[str, list[str]] = {}
        for name, reason in self.left.items():
            by_reason.setdefault(reason, []).append(name)
        return by_reason

    def lines(self) -> list[str]:
        """What was inherited and what was not, for the log."""
        part = f", {self.in_part} of them in part" if self.in_part else ""
        lines = [f"{self.share:.1%} of the student's parameters ({self.tensors} of {self.of_tensors} tensors{part})"]
        for reason, names in self.reasons().items():
            lines.append(f"left as initialized: {listed(names, _MAX_LISTED)}: {reason}")
        return lines


@dataclass(frozen=True)
class Inheritance:
    """A student and a teacher whose layers were traced side by side."""

    student: Any
    teacher: Any
    trace: Trace
    neck: tuple[Channels, ...]

    @classmethod
    def of(cls, student: Any, teacher: Any) -> Inheritance:
        """Trace two Ultralytics models. Raises NotSliceable if their layers do not correspond at all."""
        ours, theirs = list(student.model), list(teacher.model)
        if [layer.f for layer in ours] != [layer.f for layer in theirs]:
            raise NotSliceable("their layers are connected differently")
        trace = Trace(rules={**BLOCKS, **HEADS})
        outputs = [_image(ours[0], theirs[0])]
        neck: tuple[Channels, ...] = ()
        for number, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            sources = mine.f if isinstance(mine.f, list) else [mine.f]
            inputs = [outputs[-1] if source == -1 else outputs[source + 1] for source in sources]
            given = inputs if isinstance(mine.f, list) else inputs[0]
            if number == len(ours) - 1:
                neck = tuple(inputs)
            widths = _Widths(student, teacher, number)
            outputs.append(trace.module_or(f"model.{number}", mine, other, given, widths))
        return cls(student, teacher, trace, neck)

    def copy(self, mode: str, images: Tensor | None = None, progress: Progress = no_progress) -> Inherited:
        """Copy the teacher's weights into the student, in place, by a mode of `selection.MODES`, and fit them to what
        the teacher computes on `images` [N, C, H, W] in [0, 1], if there are any. `progress` is called for each layer.

        Inputs of an inherited channel that the teacher does not have get the weight 0, so that the channel computes
        what it does in the teacher, before it is fitted. Deterministic on one kind of machine.
        """
        slices = self.trace.slices
        activations = None
        if mode == "activations" and images is not None:
            activations = covariances(slices, self.teacher, images, progress)
        choose = chooser(mode, slices, activations)
        for part in slices:
            _copy(part, _chosen(part, choose))
        fitted = fit(slices, choose, self.student, self.teacher, images, progress) if images is not None else None
        return self.summary(choose, fitted)

    def summary(self, choose: Choose | None = None, fitted: Fitted | None = None) -> Inherited:
        """What `copy` copies. Only `neck` depends on which channels are chosen."""
        neck = () if choose is None else tuple(positions(level, choose) for level in self.neck)
        choose = choose or chooser("index", self.trace.slices)
        parameters = dict(self.student.named_parameters())
        counts = {part.name: _count(part, _chosen(part, choose)) for part in self.trace.slices}
        missing = {name: "its inputs or outputs have no counterpart" for name, count in counts.items() if count == 0}
        copied = {name: count for name, count in counts.items() if count > 0 and name in parameters}
        return Inherited(
            parameters=sum(copied.values()),
            of_parameters=sum(parameter.numel() for parameter in parameters.values()),
            tensors=len(copied),
            of_tensors=len(parameters),
            in_part=sum(count < parameters[name].numel() for name, count in copied.items()),
            left=self.trace.left | missing,
            neck=neck,
            fitted=fitted,
        )


def _chosen(part: Slice, choose: Choose) -> list[tuple[Tensor, Tensor]]:
    """By dimension, the student's indices and the teacher's that they stand for."""
    return [positions(dim, choose) for dim in part.dims]


def _count(part: Slice, chosen: Sequence[tuple[Tensor, Tensor]]) -> int:
    """Number of the student's values that become the teacher's."""
    sizes = [len(ours) for ours, _ in chosen]
    return math.prod([*sizes, *part.student.shape[len(sizes) :]])


@torch.no_grad()
def _copy(part: Slice, chosen: Sequence[tuple[Tensor, Tensor]]) -> None:
    if _count(part, chosen) == 0:
        return
    if not chosen:
        part.student.copy_(part.teacher)
    elif len(chosen) == 1:
        ours, theirs = chosen[0]
        part.student[ours] = part.teacher[theirs].to(part.student)
    else:
        (first, from_first), (second, from_second) = chosen
        part.student.index_fill_(part.output, chosen[part.output][0], 0)
        part.student[first[:, None], second] = part.teacher[from_first[:, None], from_second].to(part.student)


def _image(ours: nn.Module, theirs: nn.Module) -> Channels:
    first = [next(part for part in layer.modules() if isinstance(part, nn.Conv2d)) for layer in (ours, theirs)]
    return channels(first[0].in_channels, first[1].in_channels, ordered=True)


@dataclass(frozen=True)
class _Widths:
    """The output channels of one layer of both models, found with an image when they are asked for."""

    student: Any
    teacher: Any
    layer: int

    def __call__(self) -> tuple[int, int]:
        if self.layer == len(self.student.model) - 1:
            return 0, 0
        return _width(self.student, self.layer), _width(self.teacher, self.layer)


def _width(model: Any, layer: int) -> int:
    found: list[Any] = []
    copy = deepcopy(model).eval()
    copy.model[layer].register_forward_hook(lambda _module, _inputs, output: found.append(output))
    size = (1, int(copy.yaml.get("channels", 3)), _PROBE, _PROBE)
    with torch.no_grad():
        copy(torch.zeros(size, device=next(copy.parameters()).device))
    if not isinstance(found[0], Tensor):
        raise NotSliceable(f"there is no rule for layer {layer}, a {type(model.model[layer]).__name__}")
    return int(found[0].shape[1])
