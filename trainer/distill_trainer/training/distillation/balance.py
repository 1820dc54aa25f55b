"""Distillation as a share of the task's gradient where both meet: at the neck, level by level.

A weight says little about how strongly distillation pulls at the backbone: with an end-to-end head the task's loss
decays during training while a constant weight stays. Here the gradient of the losses on the neck is scaled to a share
of the task's gradient, in the same backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

DECAY = 0.98
"""Of the averages of the gradients' squares, a step; half of an average is younger than 35 steps."""


@dataclass(frozen=True)
class NeckGradients:
    """How the gradients of distillation and task compare, averaged, by level."""

    ratios: list[float]
    """Norm of distillation's gradient before it is scaled, over the task's; 0 where the task has none."""
    cosines: list[float]


class _Fork(torch.autograd.Function):
    """Passes a feature on to the head and to the projector, and weighs their gradients in the backward pass.

    What it measures there becomes the gradient of the probe, which autograd sums over passes.
    """

    @staticmethod
    def forward(ctx: Any, feature: Tensor, factor: Tensor, _probe: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(factor)
        return feature.view_as(feature), feature.view_as(feature)

    @staticmethod
    def backward(ctx: Any, task: Tensor, distillation: Tensor) -> tuple[Tensor, None, Tensor]:
        (factor,) = ctx.saved_tensors
        ours, theirs = task.float(), distillation.float()
        measured = torch.stack([ours.square().sum(), theirs.square().sum(), (ours * theirs).sum()])
        return task + factor.to(task.dtype) * distillation, None, measured


class Balance(nn.Module):
    """Scales the gradient of the losses on the neck, and measures it. One for all levels of the neck.

    Its state is the averages of each level, which checkpoints have; it has no parameters.
    """

    averages: Tensor
    """[levels, 3]: squared norms of the task's and the losses' gradient, and the product of both, averaged."""
    steps: Tensor

    def __init__(self, levels: int, share: float) -> None:
        """`share`: norm of the losses' gradient divided by the task's, at full weight."""
        super().__init__()
        self.share = share
        self.register_buffer("averages", torch.zeros(levels, 3))
        self.register_buffer("steps", torch.zeros(()))
        self._probe = torch.zeros(levels, 3, requires_grad=True)
        self._factors = torch.zeros(levels)
        self.features: tuple[Tensor, ...] = ()
        """The neck's features of the last pass, by level, for the projector."""

    @contextmanager
    def between(self, neck_and: nn.Module) -> Iterator[None]:
        """Inside, the gradients of this head and of `features` are weighed where they meet."""

        def fork(_head: nn.Module, inputs: tuple[list[Tensor]]) -> tuple[list[Tensor]]:
            (features,) = inputs
            pairs = [_Fork.apply(*one) for one in zip(features, self._factors, self._probe, strict=True)]
            self.features = tuple(projector for _, projector in pairs)
            return ([head for head, _ in pairs],)

        handle = neck_and.register_forward_pre_hook(fork)
        try:
            yield
        finally:
            handle.remove()  # so that no copy of the student has it

    def begin_step(self, factor: float) -> None:
        """Scale the losses' gradients in this step to `factor` times the share, and forget what was measured."""
        task, distillation = self.averages[:, 0], self.averages[:, 1]
        known = distillation > 0
        ratio = torch.where(known, task / torch.where(known, distillation, 1.0), 0.0)
        self._factors = factor * self.share * ratio.sqrt()
        self._probe = torch.zeros_like(self.averages, requires_grad=True)

    def measured(self) -> Tensor:
        """What `averages` averages, summed over this rank's passes since `begin_step`."""
        return self._probe.grad if self._probe.grad is not None else torch.zeros_like(self.averages)

    def end_step(self, measured: Tensor) -> None:
        """Average what was measured on all ranks. What is not finite is left out."""
        weight = torch.where(torch.isfinite(measured).all(), 1 - DECAY, 0.0)
        mean = torch.nan_to_num(measured, 0.0, 0.0, 0.0)
        first = (self.steps == 0) & (weight > 0)
        self.averages.lerp_(mean, torch.where(first, 1.0, weight))
        self.steps += (weight > 0).float()

    def summary(self) -> Tensor:
        """[2 x levels]: the ratios and the cosines of NeckGradients."""
        task, distillation, product = self.averages.unbind(1)
        ratios = torch.where(task > 0, distillation / torch.where(task > 0, task, 1.0), 0.0).sqrt()
        return torch.cat([ratios, product / (task * distillation).sqrt().clamp_min(1e-30)])
