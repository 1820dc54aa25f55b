"""Checks an architecture before Ultralytics builds it: there its words are names of functions, and expressions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)
from ultralytics.nn import tasks

_ACTIVATION: Final = re.compile(r"(torch\.)?nn\.[A-Z]\w*\((\w+=)?[\w.-]*(, ?\w+=[\w.-]+)*\)")
_FROM_TORCH: Final = frozenset(
    {"Upsample", "Identity", "Conv2d", "ConvTranspose2d", "MaxPool2d", "BatchNorm2d", "ReLU", "ZeroPad2d"}
)
_NOT_LAYERS: Final = frozenset({"TorchVision"})
"""Layers of Ultralytics' that load something else: torchvision's models, with weights from the network."""
_MOST_LAYERS, _MOST_REPEATS, _DEEPEST = 500, 200, 12


class BadArchitecture(ValueError):
    """An architecture that is not built; the text says what is wrong with it."""


def check_architecture(architecture: Mapping[str, Any]) -> None:
    """Raise BadArchitecture if building it could do more than build layers."""
    plain(architecture)
    activation = architecture.get("activation")
    if activation is not None and not (isinstance(activation, str) and _ACTIVATION.fullmatch(activation)):
        raise BadArchitecture(f"its activation is {activation!r}, not one such as nn.SiLU()")
    for count, row in enumerate(_rows(architecture), 1):
        repeats, name = row[1], row[2]
        if not _is_layer(name):
            raise BadArchitecture(f"it has a layer {name!r}, which is none of Ultralytics' or torch's")
        if not isinstance(repeats, int) or not 0 < repeats <= _MOST_REPEATS or count > _MOST_LAYERS:
            raise BadArchitecture(f"it has more layers than any model: {count}, or {repeats!r} times {name}")


def plain(value: Any, depth: int = 0) -> Any:
    """A copy of nested dictionaries and lists of words and numbers. Raises BadArchitecture for anything else."""
    if depth > _DEEPEST:
        raise BadArchitecture("it is nested too deeply")
    if isinstance(value, Mapping):
        return {plain(key, depth + 1): plain(each, depth + 1) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each, depth + 1) for each in value]
    if value is None or type(value) in (str, int, float, bool):
        return value
    raise BadArchitecture(f"it holds a {type(value).__name__}")


def _rows(architecture: Mapping[str, Any]) -> Iterator[Any]:
    for part in ("backbone", "head"):
        rows = architecture.get(part)
        if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == 4 for row in rows):
            raise BadArchitecture(f"its {part} is no list of layers, each [from, repeats, module, arguments]")
        yield from rows


def _is_layer(name: Any) -> bool:
    if not isinstance(name, str):
        return False
    if name.startswith("nn."):
        return name[3:] in _FROM_TORCH
    found = vars(tasks).get(name)
    own = (
        isinstance(found, type)
        and issubclass(found, nn.Module)
        and found.__module__.startswith("ultralytics.nn.modules")
    )
    return own and name not in _NOT_LAYERS


@contextmanager
def at_most(values: int) -> Iterator[None]:
    """Raise BadArchitecture when the layers that are built inside need more numbers, before their memory is touched."""
    left = values
    settings: Any = torch.utils.deterministic

    def count(_module: nn.Module, _name: str, tensor: torch.Tensor | None) -> None:
        nonlocal left
        left -= tensor.numel() if tensor is not None else 0
        if left < 0:
            raise BadArchitecture("its architecture is much larger than its tensors")

    fills, settings.fill_uninitialized_memory = settings.fill_uninitialized_memory, False
    hooks = [register_module_parameter_registration_hook(count), register_module_buffer_registration_hook(count)]
    try:
        yield
    finally:
        settings.fill_uninitialized_memory = fills
        for hook in hooks:
            hook.remove()
