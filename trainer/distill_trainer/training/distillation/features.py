"""What distillation losses compare of teacher and student: neck features, class logits, boxes, keypoints and masks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import Tensor
from ultralytics.nn.modules.head import Pose26

_BRANCHES = ("one2many", "one2one")


class Keypoints(NamedTuple):
    """The K keypoints at each of N locations of all levels."""

    places: Tensor
    """[B, K, 2, N]: where they are relative to the location, in cells of its level; fp32."""
    visible: Tensor | None
    """[B, K, N]: logits of their visibility, if the model has such; fp32."""


class PoseShape(NamedTuple):
    """What a pose head's raw keypoints mean."""

    keypoints: int
    dimensions: int
    """3 with visibility, else 2."""
    halved: bool
    """Whether places are halved, as in all heads before YOLO26's."""

    @classmethod
    def of(cls, head: Any) -> PoseShape:
        """Of a Pose or Pose26 head."""
        keypoints, dimensions = head.kpt_shape
        return cls(keypoints, dimensions, halved=not isinstance(head, Pose26))


class Masks(NamedTuple):
    """How the masks at N locations of all levels are made of M prototypes."""

    coefficients: Tensor
    """[B, M, N], fp32."""
    prototypes: Tensor
    """[B, M, H, W], fp32."""

    def assembled(self, index: Tensor) -> Tensor:
        """The logits [B, K, H, W] of the masks at the locations `index` [B, K]."""
        chosen = self.coefficients.gather(2, index.unsqueeze(1).expand(-1, self.coefficients.shape[1], -1))
        return torch.einsum("bmk,bmhw->bkhw", chosen, self.prototypes)


class ModelOutput(NamedTuple):
    """What one model computes for a batch. For each branch of the head means: one-to-many, then one-to-one if it has
    one. What no loss needs is empty."""

    features: tuple[Tensor, ...]
    """Neck features [B, C, H, W] by level, the inputs of the detection head."""
    logits: tuple[tuple[Tensor, ...], ...]
    """Class logits [B, nc, H, W] by level, for each branch."""
    boxes: tuple[Tensor, ...] = ()
    """Boxes [B, 4, N] for each branch, N locations of all levels: distances from the location to the left, top, right
    and bottom edge, in cells of its level; oriented ones [B, 5, N] with the angle in radians."""
    keypoints: tuple[Keypoints, ...] = ()
    """For each branch."""
    masks: tuple[Masks, ...] = ()
    """For each branch."""
    branch_weights: tuple[float, ...] = ()
    """The student's: the current weight of each branch in its task's loss."""
    sigmas: Tensor | None = None
    """The student's: how exactly each of the K keypoints can be placed, as a part of the object's size."""
    ready: torch.cuda.Event | None = None
    """Recorded after the tensors are written, if they are computed on another CUDA stream."""

    def synchronize(self) -> ModelOutput:
        """Make the current CUDA stream wait for the tensors, and return them for use on it. Does not block the host."""
        if self.ready is None:
            return self
        stream = torch.cuda.current_stream(self.features[0].device)
        stream.wait_event(self.ready)
        nested = (*self.logits, *self.keypoints, *self.masks)
        for tensor in (*self.features, *self.boxes, *filter(_is_tensor, chain.from_iterable(nested))):
            tensor.record_stream(stream)  # the allocator must not reuse its memory before this stream is done
        return self._replace(ready=None)


def _is_tensor(value: object) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor)


def model_output(
    predictions: dict[str, Any], *, boxes: bool = False, pose: PoseShape | None = None, masks: bool = False
) -> ModelOutput:
    """The ModelOutput of a Detect-family model, from its head's raw training predictions; with `boxes` and `masks` if
    asked, and with keypoints of a `pose` head.

    Features are those of the one-to-many branch: the one-to-one branch of an end-to-end head gets detached copies.
    """
    branches = [predictions[name] for name in _BRANCHES if name in predictions] or [predictions]
    features = tuple(branches[0]["feats"])
    logits = tuple(_by_level(branch["scores"], features) for branch in branches)
    decoded = tuple(decode(branch["boxes"], branch.get("angle")) for branch in branches) if boxes else ()
    keypoints = tuple(decode_keypoints(branch["kpts"], pose) for branch in branches) if pose is not None else ()
    assembled = tuple(Masks(one["mask_coefficient"].float(), _prototypes(one)) for one in branches) if masks else ()
    return ModelOutput(features, logits, decoded, keypoints, assembled)


def _prototypes(branch: dict[str, Any]) -> Tensor:
    found = branch["proto"]  # with semantic logits, in training
    prototypes: Tensor = found[0] if isinstance(found, tuple) else found
    return prototypes.float()


def decode_keypoints(raw: Tensor, pose: PoseShape) -> Keypoints:
    """A pose head's raw keypoints [B, K D, N] as its own decoding means them."""
    values = raw.float().unflatten(1, (pose.keypoints, pose.dimensions))
    places = 2 * values[:, :, :2] - 0.5 if pose.halved else values[:, :, :2]
    return Keypoints(places, values[:, :, 2] if pose.dimensions == 3 else None)


def decode(raw: Tensor, angle: Tensor | None = None) -> Tensor:
    """A head's raw boxes [B, 4 R, N] -> distances [B, 4, N], with an `angle` [B, 1, N] as fifth channel; in fp32.

    With R > 1, as in YOLOv8 and YOLO11, each distance is the mean of a distribution over R bins (DFL).
    """
    distances = raw.float().unflatten(1, (4, -1))
    bins = distances.shape[2]
    if bins > 1:
        positions = torch.arange(bins, dtype=distances.dtype, device=raw.device).view(1, 1, -1, 1)
        distances = (distances.softmax(2) * positions).sum(2, keepdim=True)
    distances = distances.squeeze(2)
    return distances if angle is None else torch.cat([distances, angle.float()], dim=1)


def _by_level(scores: Tensor, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """[B, nc, sum of H x W] -> [B, nc, H, W] by level."""
    sizes = [feature.shape[-2:] for feature in features]
    parts = scores.split([height * width for height, width in sizes], dim=-1)
    return tuple(part.unflatten(-1, tuple(size)) for part, size in zip(parts, sizes, strict=True))
