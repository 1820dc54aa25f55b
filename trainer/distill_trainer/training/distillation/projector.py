"""Projects the student's features to the teacher's channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

_SHIFT = 0.3
"""Added before the ReLU and taken off behind it, so that it passes what SiLU gives, which is at least -0.279."""


class Projector(nn.ModuleList):
    """Per level: 1x1 convolution, ReLU, 1x1 convolution, all with bias, as in Ultralytics' distillation; if `linear`,
    a single 1x1 convolution.
    """

    def __init__(
        self, student_channels: Sequence[int], teacher_channels: Sequence[int], *, linear: bool = False
    ) -> None:
        super().__init__(
            nn.Sequential(
                nn.Conv2d(student, teacher, kernel_size=1),
                *([] if linear else [nn.ReLU(inplace=True), nn.Conv2d(teacher, teacher, kernel_size=1)]),
            )
            for student, teacher in zip(student_channels, teacher_channels, strict=True)
        )

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Student features [B, Cs, H, W] by level -> [B, Ct, H, W] by level."""
        return tuple(project(feature) for project, feature in zip(self, features, strict=True))

    @torch.no_grad()
    def align(self, inherited: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Project channels that the student inherited to the teacher's channels that they are, unchanged.

        `inherited`: by level, the student's channels and the teacher's. All other weights stay as they are.
        """
        by_level: list[Any] = list(self)
        for project, (student, teacher) in zip(by_level, inherited, strict=True):
            first, last = project[0], project[-1]
            first.weight[teacher] = 0
            first.weight[teacher, student] = 1
            if last is first:
                first.bias[teacher] = 0
                continue
            first.bias[teacher] = _SHIFT
            last.weight[teacher] = 0
            last.weight[teacher, teacher] = 1
            last.bias[teacher] = -_SHIFT
