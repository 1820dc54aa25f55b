"""Turning a model's convolutions to 8 bits."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from distill_trainer.convolutions import replace_convolutions
from distill_trainer.int8.convolution import Int8Conv


@torch.no_grad()
def to_int8(model: nn.Module, look: Callable[[Tensor], object], samples: Iterable[Tensor], batch: int) -> None:
    """Turn the convolutions of `model`, which is frozen, in fp32 on the CPU, and fused with its BatchNorm, to 8 bits.

    `look` runs the model on one of `samples`, tensors of images; their activations give the ranges. Fastest with
    `batch` images of this size.
    """
    convolutions = replace_convolutions(model, Int8Conv)
    for images in samples:
        look(images)
    for convolution in convolutions:
        convolution.settle(batch)
