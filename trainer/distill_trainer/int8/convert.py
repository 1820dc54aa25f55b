"""Turning a model's convolutions to 8 bits."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from distill_trainer.int8.convolution import ACTIVATIONS, Int8Conv


@torch.no_grad()
def to_int8(model: nn.Module, look: Callable[[Tensor], object], samples: Iterable[Tensor]) -> None:
    """Turn the convolutions of `model`, which is frozen, in fp32 on the CPU, and fused with its BatchNorm, to 8 bits.

    `look` runs the model on one of `samples`, tensors of images; their activations give the ranges.
    """
    convolutions = _replace(model)
    for images in samples:
        look(images)
    for convolution in convolutions:
        convolution.settle()


def _replace(module: nn.Module) -> list[Int8Conv]:
    replaced = []
    for name, child in module.named_children():
        if (found := _fused(child)) is None:
            replaced += _replace(child)
            continue
        convolution = Int8Conv(*found)
        for attribute in ("f", "i"):  # where BaseModel's forward pass finds a layer's input, and its number
            if hasattr(child, attribute):
                setattr(convolution, attribute, getattr(child, attribute))
        setattr(module, name, convolution)
        replaced.append(convolution)
    return replaced


def _fused(module: nn.Module) -> tuple[nn.Conv2d, nn.Module] | None:
    """Convolution and activation of a module that is these and nothing else."""
    if type(module) is nn.Conv2d:
        return module, nn.Identity()
    children = dict(module.named_children())
    if children.keys() != {"conv", "act"} or type(children["conv"]) is not nn.Conv2d:
        return None
    return (children["conv"], children["act"]) if type(children["act"]) in ACTIVATIONS else None
