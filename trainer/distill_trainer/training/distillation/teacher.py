"""The frozen teacher, reduced to the parts that distillation needs: backbone, neck and branches of the head."""

from __future__ import annotations

import math
from collections.abc import Set
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.nn.modules import OBB, OBB26
from ultralytics.nn.modules.block import Proto26
from ultralytics.nn.modules.head import Pose, Pose26, Segment
from ultralytics.nn.tasks import BaseModel

from distill_trainer.training.distillation.features import Masks, ModelOutput, PoseShape, decode, decode_keypoints
from distill_trainer.training.distillation.losses.registry import Signal


class _Head(nn.Module):
    """Replaces a Detect-family head, so that only the needed signals are computed."""

    def __init__(self, head: Any, needs: Set[Signal]) -> None:
        super().__init__()
        self.f, self.i = head.f, head.i  # BaseModel's forward reads the layer's inputs and index from these
        self.classes = _branches(head, "cv3", wanted=Signal.CLASS in needs)
        self.boxes = _branches(head, "cv2", wanted=Signal.BOX in needs)
        self.angles = _branches(head, "cv4", wanted=Signal.BOX in needs and isinstance(head, OBB))
        self.angle_is_raw = isinstance(head, OBB26)
        pose = Signal.KEYPOINTS in needs and isinstance(head, Pose)
        self.keypoints = _keypoint_branches(head) if pose else nn.ModuleList()
        self.pose = PoseShape.of(head) if pose else None
        masks = Signal.MASK in needs and isinstance(head, Segment)
        self.coefficients = _branches(head, "cv4", wanted=masks)
        self.prototypes: Any = head.proto if masks else None
        if isinstance(self.prototypes, Proto26):
            self.prototypes.fuse()

    def forward(self, features: list[Tensor]) -> ModelOutput:
        logits = tuple(tuple(_by_level(branch, features)) for branch in self.classes)
        boxes = [_flat(_by_level(branch, features)) for branch in self.boxes]
        angles: list[Tensor | None] = [self._angle(_flat(_by_level(branch, features))) for branch in self.angles]
        raw = [_flat(_by_level(branch, features)) for branch in self.keypoints]
        keypoints = tuple(decode_keypoints(one, self.pose) for one in raw) if self.pose is not None else ()
        masks = self._masks(features) if self.prototypes is not None else ()
        distances = tuple(map(decode, boxes, angles or [None] * len(boxes)))
        return ModelOutput(tuple(features), logits, distances, keypoints, masks)

    def _masks(self, features: list[Tensor]) -> tuple[Masks, ...]:
        made = self.prototypes(features if isinstance(self.prototypes, Proto26) else features[0]).float()
        return tuple(Masks(_flat(_by_level(branch, features)).float(), made) for branch in self.coefficients)

    def _angle(self, raw: Tensor) -> Tensor:
        return raw if self.angle_is_raw else (raw.sigmoid() - 0.25) * math.pi  # as in Ultralytics' heads


def _branches(head: Any, name: str, *, wanted: bool) -> nn.ModuleList:
    """One module a level for each branch of the head: one-to-many, then one-to-one if it has one."""
    found = (getattr(head, attribute, None) for attribute in (name, f"one2one_{name}"))
    return nn.ModuleList(branch for branch in found if wanted and branch is not None)


def _keypoint_branches(head: Any) -> nn.ModuleList:
    """As `_branches`. A branch of YOLO26 has two parts, of which the second has a sibling for training alone."""
    found: Any = _branches(head, "cv4", wanted=True)
    if not isinstance(head, Pose26):
        return found
    last: Any = _branches(head, "cv4_kpts", wanted=True)
    return nn.ModuleList(
        nn.ModuleList(nn.Sequential(*level) for level in zip(first, second, strict=True))
        for first, second in zip(found, last, strict=True)
    )


def _by_level(branch: Any, features: list[Tensor]) -> list[Tensor]:
    return [level(feature) for level, feature in zip(branch, features, strict=True)]


def _flat(levels: list[Tensor]) -> Tensor:
    return torch.cat([level.flatten(2) for level in levels], dim=2)


class Teacher(BaseModel):
    """A frozen model that returns the signals that distillation needs; fused, channels-last.

    It is never part of a trained module, DDP, an optimizer or a state_dict.
    """

    def __init__(
        self,
        model: Any,
        device: torch.device,
        dtype: torch.dtype,
        needs: Set[Signal] = frozenset({Signal.CLASS}),
        batch_fraction: float = 1.0,
    ) -> None:
        """Copy the needed parts of `model`, which `pair.check` must have accepted, to `device` and `dtype`.

        `needs`: the signals besides the neck's features. `batch_fraction`: part of the images that it looks at.
        """
        super().__init__()
        layers = deepcopy(model.model)
        self.model = nn.Sequential(*layers[:-1], _Head(layers[-1], needs))
        self.save = model.save
        self.yaml = model.yaml
        self.fuse(verbose=False)
        self.eval().requires_grad_(False)
        self.to(device=device, dtype=dtype, memory_format=torch.channels_last)
        self.dtype = dtype
        self.batch_fraction = batch_fraction
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        if self.stream is not None:  # what was copied and fused above
            self.stream.wait_stream(torch.cuda.current_stream(device))

    def train(self, mode: bool = True) -> Teacher:  # noqa: ARG002  (the signature is nn.Module's)
        """Stay in eval mode: the batch statistics of a frozen model must not change."""
        return super().train(False)

    @torch.no_grad()  # not inference_mode: the student's backward pass saves these features
    def infer(self, images: Tensor, ready: torch.cuda.Event | None = None) -> ModelOutput:
        """The signals for images [B, 3, H, W] in [0, 1], or for the last ones if the teacher has a `batch_fraction`;
        features and logits in the teacher's dtype.

        On CUDA this runs on a separate stream, in parallel with the student, as soon as the images are `ready` (None:
        when the current stream has done what is queued). Call `ModelOutput.synchronize` before using the result.
        """
        images = images[-max(1, round(self.batch_fraction * images.shape[0])) :]
        if self.stream is None:
            return self._infer(images)
        self.stream.wait_event(ready or torch.cuda.current_stream(images.device).record_event())
        with torch.cuda.stream(self.stream):
            output = self._infer(images)
            images.record_stream(self.stream)
            return output._replace(ready=self.stream.record_event())

    def _infer(self, images: Tensor) -> ModelOutput:
        images = images.to(dtype=self.dtype, memory_format=torch.channels_last)
        with torch.autocast(images.device.type, enabled=False):
            output: ModelOutput = self(images)  # through __call__, which compile() replaces
        return output
