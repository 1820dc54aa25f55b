"""Projects the student's features to the teacher's channels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class Projector(nn.ModuleList):
    """Per level: 1x1 convolution, ReLU, 1x1 convolution, all with bias, as in Ultralytics' distillation."""

    def __init__(self, student_channels: Sequence[int], teacher_channels: Sequence[int]) -> None:
        super().__init__(
            nn.Sequential(
                nn.Conv2d(student, teacher, kernel_size=1),
                nn.ReLU(inplace=True),
                nn.Conv2d(teacher, teacher, kernel_size=1),
            )
            for student, teacher in zip(student_channels, teacher_channels, strict=True)
        )

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Student features [B, Cs, H, W] by level -> [B, Ct, H, W] by level."""
        return tuple(project(feature) for project, feature in zip(self, features, strict=True))
