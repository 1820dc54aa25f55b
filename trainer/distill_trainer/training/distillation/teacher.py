"""The frozen teacher, reduced to the parts that distillation needs: backbone, neck and the head's class branches."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.nn.tasks import BaseModel

from distill_trainer.training.distillation.features import ModelOutput


class _ClassBranches(nn.Module):
    """Replaces a Detect-family head, so that boxes, masks and keypoints are not computed."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.f, self.i = head.f, head.i  # BaseModel's forward reads the layer's inputs and index from these
        one2one = getattr(head, "one2one_cv3", None)
        self.branches = nn.ModuleList([head.cv3] if one2one is None else [head.cv3, one2one])

    def forward(self, features: list[Tensor]) -> ModelOutput:
        logits = ([level(feature) for level, feature in zip(branch, features, strict=True)] for branch in self.branches)
        return ModelOutput(tuple(features), tuple(tuple(levels) for levels in logits))


class Teacher(BaseModel):
    """A frozen model that returns features and class logits; fused, channels-last.

    It is never part of a trained module, DDP, an optimizer or a state_dict.
    """

    def __init__(self, model: Any, device: torch.device, dtype: torch.dtype) -> None:
        """Copy the needed parts of `model`, which `pair.check` must have accepted, to `device` and `dtype`."""
        super().__init__()
        layers = deepcopy(model.model)
        self.model = nn.Sequential(*layers[:-1], _ClassBranches(layers[-1]))
        self.save = model.save
        self.yaml = model.yaml
        self.fuse(verbose=False)
        self.eval().requires_grad_(False)
        self.to(device=device, dtype=dtype, memory_format=torch.channels_last)
        self.dtype = dtype
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def train(self, mode: bool = True) -> Teacher:  # noqa: ARG002  (the signature is nn.Module's)
        """Stay in eval mode: the batch statistics of a frozen model must not change."""
        return super().train(False)

    @torch.no_grad()  # not inference_mode: the student's backward pass saves these features
    def infer(self, images: Tensor) -> ModelOutput:
        """Features and class logits for images [B, 3, H, W] in [0, 1], in the teacher's dtype.

        On CUDA this runs on a separate stream, in parallel with the student's forward pass. Call
        `ModelOutput.synchronize` before using the result.
        """
        if self._stream is None:
            return self._infer(images)
        self._stream.wait_stream(torch.cuda.current_stream(images.device))
        with torch.cuda.stream(self._stream):
            output = self._infer(images)
            images.record_stream(self._stream)
            return output._replace(ready=self._stream.record_event())

    def _infer(self, images: Tensor) -> ModelOutput:
        images = images.to(dtype=self.dtype, memory_format=torch.channels_last)
        with torch.autocast(images.device.type, enabled=False):
            output: ModelOutput = self(images)  # through __call__, which compile() replaces
        return output
