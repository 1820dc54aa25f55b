"""Which of the teacher's channels a narrower student takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from distill_trainer.models.inherit.channels import Choose, Group
from distill_trainer.models.inherit.trace import Slice

Pick = Callable[[int, Tensor], Tensor]
"""(number to select, score of each of the teacher's units) -> the selected units, ascending."""


def chooser(mode: str, slices: Sequence[Slice]) -> Choose:
    """The choice for all groups of a trace, by a mode of MODES. The same models give the same choice everywhere."""
    pick, scores = MODES[mode], _scores(slices)
    chosen: dict[int, Tensor] = {}

    def choose(group: Group) -> Tensor:
        root = group.root
        if id(root) not in chosen:
            chosen[id(root)] = _choose(root, scores.get(id(root)), pick)
        return chosen[id(root)]

    return choose


def _choose(group: Group, scores: Tensor | None, pick: Pick) -> Tensor:
    if group.new or (group.ordered and group.student != group.teacher):
        return torch.empty(0, dtype=torch.long)
    if group.student >= group.teacher:
        return torch.arange(group.teacher)
    return pick(group.student, scores if scores is not None else torch.ones(group.teacher))


def _scores(slices: Sequence[Slice]) -> dict[int, Tensor]:
    """By the id of a group: the scores of its units, summed over the tensors that make them, each with mean 1."""
    scores: dict[int, Tensor] = {}
    for part in slices:
        if part.score is None:
            continue
        for slot in part.dims[part.output].slots:
            root = slot.group.root
            mine = part.score[slot.start : slot.start + root.teacher * slot.block]
            mine = mine.view(root.teacher, slot.block).float().mean(1)
            scores[id(root)] = scores.get(id(root), 0) + mine / mine.mean().clamp_min(1e-12)
    return scores


def _every_kth(count: int, scores: Tensor) -> Tensor:
    return torch.arange(count) * len(scores) // count


def _largest(count: int, scores: Tensor) -> Tensor:
    return scores.argsort(descending=True, stable=True)[:count].sort().values


MODES: Mapping[str, Pick] = {"index": _every_kth, "importance": _largest}
"""index: evenly spaced. importance: the largest BatchNorm scales. Both keep the teacher's order."""
