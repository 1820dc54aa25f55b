"""Converts a loaded shard batch to the models' input."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate


@dataclass(frozen=True)
class Preprocess:
    """Moves batches to the device, scales pixels to [0, 1], and varies the image size for multi_scale."""

    device: torch.device
    imgsz: int
    stride: int
    multi_scale: float
    """Largest relative change of the image size; 0: constant."""
    seed: int

    def __call__(self, batch: dict[str, Any], step: int) -> dict[str, Any]:
        """A new batch on the device; `img` [B, C, H, W] uint8 becomes float in [0, 1]."""
        asynchronous = self.device.type == "cuda"
        on_device = {
            key: value.to(self.device, non_blocking=asynchronous) if isinstance(value, Tensor) else value
            for key, value in batch.items()
        }
        images: Tensor = on_device["img"].float() / 255
        if self.multi_scale > 0:
            images = _resized(images, self.size_at(step), self.stride)
        on_device["img"] = images.contiguous(memory_format=torch.channels_last)
        return on_device

    def size_at(self, step: int) -> int:
        """Longer image side of a step: a random multiple of the stride, the same on every rank."""
        low = max(self.stride, int(self.imgsz * (1 - self.multi_scale)))
        high = int(self.imgsz * (1 + self.multi_scale) + self.stride)
        return random.Random(f"{self.seed}/{step}").randrange(low, high) // self.stride * self.stride


def _resized(images: Tensor, size: int, stride: int) -> Tensor:
    factor = size / max(images.shape[2:])
    if factor == 1:
        return images
    shape = [math.ceil(side * factor / stride) * stride for side in images.shape[2:]]
    return interpolate(images, size=shape, mode="bilinear", align_corners=False)
