"""Encodes a state as raw tensor memory plus a small structure that refers to the tensors by index.

The structure is loaded with `weights_only=True`; the tensor memory is not a pickle.
"""

import io
from dataclasses import dataclass
from typing import Any

import torch

_ALIGNMENT = 64
_PLACEHOLDER = "\0tensor"

TensorSpec = tuple[str, tuple[int, ...], tuple[int, ...], int]
"""dtype, shape, strides in elements, offset in bytes."""


@dataclass(frozen=True)
class EncodingPlan:
    """The layout of a state's tensors in memory."""

    structure: Any
    tensors: list[torch.Tensor]
    specs: list[TensorSpec]
    size: int
    """Bytes of all tensors, with alignment."""

    def structure_bytes(self) -> bytes:
        """The structure, encoded."""
        stream = io.BytesIO()
        torch.save({"state": self.structure, "tensors": self.specs}, stream)
        return stream.getvalue()


def plan(state: Any) -> EncodingPlan:
    """Lay out a nested dict, list or tuple of tensors, numbers, strings, bytes and None.

    Raises TypeError for other types, which cannot be loaded safely, naming the place in the state.
    """
    tensors: list[torch.Tensor] = []
    structure = _split(state, tensors, "state")
    specs: list[TensorSpec] = []
    offset = 0
    for tensor in tensors:
        # Keep the strides of dense tensors: kernels may round differently for another memory layout, and a resumed run
        # must be bitwise equal.
        stride = tensor.stride()
        if not tensor.is_contiguous():
            stride = torch.empty_like(tensor, device="meta").stride()
        specs.append((str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), stride, offset))
        offset += -(-tensor.numel() * tensor.element_size() // _ALIGNMENT) * _ALIGNMENT
    return EncodingPlan(structure, tensors, specs, offset)


def views(memory: torch.Tensor, specs: list[TensorSpec]) -> list[torch.Tensor]:
    """Tensors with the given specs that are views of `memory` (uint8)."""
    out = []
    for name, shape, stride, offset in specs:
        dtype = getattr(torch, name)
        count = 1
        for length in shape:
            count *= length
        flat = memory[offset : offset + count * dtype.itemsize].view(dtype)
        out.append(flat.as_strided(shape, stride))
    return out


def restore(structure: bytes | bytearray, memory: bytearray) -> Any:
    """Decode a state. Tensors are on the CPU and do not share memory."""
    loaded = torch.load(io.BytesIO(structure), weights_only=True)
    whole = torch.frombuffer(memory, dtype=torch.uint8) if memory else torch.empty(0, dtype=torch.uint8)
    return _join(loaded["state"], [view.clone() for view in views(whole, loaded["tensors"])])


def _split(value: Any, tensors: list[torch.Tensor], place: str) -> Any:
    if isinstance(value, torch.Tensor):
        tensors.append(value.detach())
        return {_PLACEHOLDER: len(tensors) - 1}
    if value is None or type(value) in (bool, int, float, str, bytes):
        return value
    if isinstance(value, dict):
        if _PLACEHOLDER in value:
            raise TypeError(f"{place} uses the reserved key {_PLACEHOLDER!r}")
        for key in value:
            if type(key) not in (str, int, bool, float):
                raise TypeError(f"{place} has a key of type {type(key).__name__}; use str or int")
        return {key: _split(item, tensors, f"{place}[{key!r}]") for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_split(item, tensors, f"{place}[{index}]") for index, item in enumerate(value))
    raise TypeError(
        f"{place} is a {type(value).__name__}; a checkpoint can only hold tensors, numbers, strings, bytes and None"
    )


def _join(value: Any, tensors: list[torch.Tensor]) -> Any:
    if isinstance(value, dict):
        if _PLACEHOLDER in value:
            return tensors[value[_PLACEHOLDER]]
        return {key: _join(item, tensors) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_join(item, tensors) for item in value)
    return value
