"""The teacher's scores, which weight the losses: how sure it is that something is at a location."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

LEAST_SCORE = 0.05
"""Below this score of the teacher, its box and keypoints mean nothing."""


def confident(score: Tensor) -> Tensor:
    """Scores, with 0 for those below LEAST_SCORE."""
    return torch.where(score > LEAST_SCORE, score, 0.0)


def level_scores(branches: Sequence[Tensor]) -> Tensor:
    """Class logits [B, nc, H, W] of one level by branch -> highest class score [B, H, W] of their mean, in fp32."""
    logits = sum(branches[1:], start=branches[0]) / len(branches)
    # The maximum of the sigmoids is the sigmoid of the maximum, which needs one channel instead of nc.
    return logits.amax(dim=1).float().sigmoid()


def all_levels(branch: Sequence[Tensor]) -> Tensor:
    """Maps [B, C, H, W] by level -> [B, C, N] at all locations, in fp32."""
    return torch.cat([level.flatten(2) for level in branch], dim=2).float()


def over_branches(losses: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The sum of the branches' losses, each weighted as the branch is in the student's task loss."""
    return torch.stack([weight * loss for loss, weight in zip(losses, weights, strict=False)]).sum()
