"""The frozen teacher, cut to what distillation reads: backbone, neck and the classification branches of the head."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from ultralytics.nn.tasks import BaseModel


class TeacherOutput(NamedTuple):
    """What the student learns from, by level."""

    features: tuple[Tensor, ...]
    """Neck features [B, C, H, W]."""
    logits: tuple[Tensor, ...]
    """Class logits [B, nc, H, W]; for an end-to-end head the mean of its two branches."""


class _ClassBranches(nn.Module):
    """Stands in for a Detect-family head: boxes, masks, keypoints and decoding are never computed."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.f, self.i = head.f, head.i  # where BaseModel's forward finds the inputs
        self.one2many = head.cv3
        self.one2one = getattr(head, "one2one_cv3", None)

    def forward(self, features: list[Tensor]) -> TeacherOutput:
        logits = [branch(feature) for branch, feature in zip(self.one2many, features, strict=True)]
        if self.one2one is not None:
            others = (branch(feature) for branch, feature in zip(self.one2one, features, strict=True))
            logits = [(a + b) / 2 for a, b in zip(logits, others, strict=True)]
        return TeacherOutput(tuple(features), tuple(logits))


class Teacher(BaseModel):
    """A frozen model that maps images to TeacherOutput; convolutions and BatchNorm fused, channels-last.

    It is a plain object beside the trained modules: never inside DDP, an optimizer or a state_dict.
    """

    def __init__(self, model: Any, device: torch.device, dtype: torch.dtype) -> None:
        """Cut a deep copy of `model` (a Detect-family model that the pair check accepted) for `device` and `dtype`."""
        super().__init__()
        layers = deepcopy(model.model)
        self.model = nn.Sequential(*layers[:-1], _ClassBranches(layers[-1]))
        self.save = model.save
        self.yaml = model.yaml
        self.fuse(verbose=False)
        self.eval().requires_grad_(False)
        self.to(device=device, dtype=dtype, memory_format=torch.channels_last)
        self.dtype = dtype

    def train(self, mode: bool = True) -> Teacher:  # noqa: ARG002  (the signature is nn.Module's)
        """Stays in eval mode whatever is asked: batch statistics of a frozen model are frozen too."""
        return super().train(False)

    @torch.no_grad()  # not inference_mode: the student's backward pass saves these features
    def look(self, images: Tensor) -> TeacherOutput:
        """Features and class logits for images [B, 3, H, W] in [0, 1], in the teacher's own dtype."""
        images = images.to(dtype=self.dtype, memory_format=torch.channels_last)
        with torch.autocast(images.device.type, enabled=False):
            return self.predict(images)
