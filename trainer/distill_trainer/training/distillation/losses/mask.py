"""mask: compares the masks of the objects that the teacher sees."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from distill_trainer.training.distillation.features import Masks, ModelOutput
from distill_trainer.training.distillation.losses.scores import all_levels, confident, over_branches

MOST: Final = 64
"""Locations of an image, those with the highest scores, whose masks are compared: a mask has as many values as the
prototypes, and several locations see the same object.
"""


def mask(student: ModelOutput, teacher: ModelOutput) -> Tensor:
    """The divergence of the student's mask from the teacher's, in the teacher's box, weighted by w = max_c
    sigmoid(logit_c).

    A location's mask is sigmoid(coefficients . prototypes), of each model by its own: prototypes and coefficients alone
    mean nothing. For one branch of the head: sum of w KL over the MOST locations of each image with the highest
    w > 0.05, divided by the sum of their w, at least 1; KL is the mean over the box of Bernoulli's divergence, that is
    the cross-entropy minus the teacher's own entropy. Branches have the weights of the student's task loss, and are
    summed. Returns a scalar in fp32.
    """
    sizes = [(feature.shape[-2], feature.shape[-1]) for feature in teacher.features]
    parts = zip(student.masks, teacher.masks, teacher.boxes, teacher.logits, strict=False)
    losses = [_branch(*one[:3], all_levels(one[3]).amax(1).sigmoid(), sizes) for one in parts]
    return over_branches(losses, student.branch_weights)


def _branch(student: Masks, teacher: Masks, boxes: Tensor, score: Tensor, sizes: list[tuple[int, int]]) -> Tensor:
    """Masks at N locations, the teacher's boxes [B, 4, N] and scores [B, N] -> scalar."""
    weight, index = confident(score).topk(min(MOST, score.shape[1]), dim=1)
    ours, theirs = (one.assembled(index).flatten(2) for one in (student, teacher))
    target = theirs.sigmoid()
    entropy = functional.binary_cross_entropy_with_logits(theirs, target, reduction="none")
    divergence = functional.binary_cross_entropy_with_logits(ours, target, reduction="none") - entropy
    height, width = teacher.prototypes.shape[-2:]
    edges = _corners(boxes, sizes, height, width).gather(2, index.unsqueeze(1).expand(-1, 4, -1))
    inside = _inside(edges, height, width).flatten(2)
    mean = (divergence * inside).sum(2) / inside.sum(2).clamp_min(1.0)
    return (weight * mean).sum() / weight.sum().clamp_min(1.0)


def _corners(boxes: Tensor, sizes: list[tuple[int, int]], height: int, width: int) -> Tensor:
    """Distances [B, 4, N] in cells of their level -> edges left, top, right, bottom in prototypes' pixels."""
    edges = []
    for level, (rows, columns) in zip(boxes.split([h * w for h, w in sizes], dim=2), sizes, strict=True):
        y, x = (torch.arange(count, device=boxes.device) + 0.5 for count in (rows, columns))
        centre = torch.stack([x.repeat(rows), y.repeat_interleave(columns)]).repeat(2, 1)
        sign = torch.tensor([-1.0, -1.0, 1.0, 1.0], device=boxes.device).view(1, 4, 1)
        scale = torch.tensor([width / columns, height / rows] * 2, device=boxes.device).view(1, 4, 1)
        edges.append((centre + sign * level) * scale)
    return torch.cat(edges, dim=2)


def _inside(edges: Tensor, height: int, width: int) -> Tensor:
    """Edges [B, 4, K] in pixels -> 1 where a pixel's centre is in the box, else 0: [B, K, H, W]."""
    y, x = (torch.arange(count, device=edges.device) + 0.5 for count in (height, width))
    left, top, right, bottom = edges.unsqueeze(-1).unbind(1)
    across, down = (x >= left) & (x < right), (y >= top) & (y < bottom)
    return (down.unsqueeze(-1) & across.unsqueeze(-2)).to(edges.dtype)
