"""Which of the teacher's channels a narrower student takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from distill_trainer.models.inherit.channels import Choose, Group
from distill_trainer.models.inherit.trace import Slice

Pick = Callable[[int, Tensor], Tensor]
"""(number to select, what is known of each of the teacher's units) -> the selected units, ascending."""


def chooser(mode: str, slices: Sequence[Slice], covariances: Mapping[int, Tensor] | None = None) -> Choose:
    """The choice for all groups of a trace, by a mode of MODES. The same models give the same choice everywhere.

    `covariances`: by the id of a group, how the activations of its units vary together; for `activations`.
    """
    pick = MODES[mode]
    scores = covariances if covariances is not None else _scores(slices)
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


def _spanning(count: int, covariance: Tensor) -> Tensor:
    """Units from which all others can be told best by linear regression: a pivoted Cholesky decomposition, which takes
    the unit that explains most of what those before it leave unexplained. If nothing is left, what varies most.
    """
    if covariance.ndim == 1:  # of units that no layer's output was seen of
        return _every_kth(count, covariance)
    left, rank = covariance, covariance.diagonal().clone()
    least, taken = _NOTHING * float(rank.mean()), list[int]()
    while len(taken) < count:
        explains = left.square().sum(0) / left.diagonal().clamp_min(least)
        explains[taken] = -1
        best = int(explains.argmax())
        if left[best, best] <= least:
            break
        taken.append(best)
        left = left - torch.outer(left[best], left[best]) / left[best, best]
    rank[taken] = torch.inf
    return _largest(count, rank)


_NOTHING = 1e-6
"""A part of the variance that is nothing, as sums of 32-bit numbers go."""
MODES: Mapping[str, Pick] = {"index": _every_kth, "importance": _largest, "activations": _spanning}
"""index: evenly spaced. importance: the largest BatchNorm scales. activations: those that tell most of the others. All
keep the teacher's order."""
