"""The convolutions of a frozen model, each with the activation behind it, and what may stand in their place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from torch import nn

Made = TypeVar("Made", bound=nn.Module)

ACTIVATIONS: Mapping[type[nn.Module], str] = {nn.SiLU: "swish", nn.ReLU: "relu", nn.Identity: "none"}
"""oneDNN's names for what it does to sums before it writes them."""


def replace_convolutions(model: nn.Module, make: Callable[[nn.Conv2d, nn.Module], Made]) -> list[Made]:
    """Put what `make` makes of a convolution and its activation in the place of both, everywhere in `model`.

    `model` is fused with its BatchNorm. A convolution without an activation in ACTIVATIONS has nn.Identity. Returns
    what was put in, in the order of the modules.
    """
    made: list[Made] = []
    for name, child in model.named_children():
        if (found := _with_activation(child)) is None:
            made += replace_convolutions(child, make)
            continue
        replacement = make(*found)
        for attribute in ("f", "i"):  # where BaseModel's forward pass finds a layer's input, and its number
            if hasattr(child, attribute):
                setattr(replacement, attribute, getattr(child, attribute))
        setattr(model, name, replacement)
        made.append(replacement)
    return made


def _with_activation(module: nn.Module) -> tuple[nn.Conv2d, nn.Module] | None:
    """Convolution and activation of a module that is these and nothing else."""
    if type(module) is nn.Conv2d:
        return module, nn.Identity()
    children = dict(module.named_children())
    if children.keys() != {"conv", "act"} or type(children["conv"]) is not nn.Conv2d:
        return None
    return (children["conv"], children["act"]) if type(children["act"]) in ACTIVATIONS else None
