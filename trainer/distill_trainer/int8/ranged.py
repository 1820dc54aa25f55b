"""A tensor that knows its range, and the operations that need not leave bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from distill_trainer.int8.ranges import Range

if TYPE_CHECKING:
    from distill_trainer.int8.convolution import Int8Conv


class Ranged:
    """Stands in for a tensor [B, C, H, W] in a model's forward pass.

    Its data are floats while ranges are looked for, and bytes from then on. An operation without a rule for bytes
    gets, and gives, ordinary tensors of floats.
    """

    def __init__(self, data: Tensor, range_: Range, maker: Int8Conv | None = None, exact: Tensor | None = None) -> None:
        """`maker`: the convolution that this is the result of; `exact`: the result before it was rounded to bytes."""
        self.data, self.range = data, range_
        self._maker, self._exact = maker, exact

    @property
    def is_bytes(self) -> bool:
        """Whether ranges are known, so that the data are bytes."""
        return self.data.dtype is torch.uint8

    def floats(self) -> Tensor:
        """The values."""
        return self.range.values_of(self.data) if self.is_bytes else self.data

    def exact(self) -> Tensor:
        """The values, before they were rounded to bytes where a convolution has just made them."""
        if self._exact is not None:
            return self._exact
        if self._maker is not None:
            self._maker.keeps_floats = True  # from the next pass on
        return self.floats()

    def dense(self) -> Tensor:
        """The data, in one piece from now on: convolutions would copy a slice, and sums go through it one by one."""
        self.data = self.data.contiguous(memory_format=torch.channels_last)
        return self.data

    @property
    def shape(self) -> torch.Size:
        return self.data.shape

    def chunk(self, chunks: int, dim: int = 0) -> tuple[Ranged, ...]:
        return tuple(Ranged(part, self.range) for part in self.data.chunk(chunks, dim))

    def split(self, sizes: int | Sequence[int], dim: int = 0) -> tuple[Ranged, ...]:
        return tuple(Ranged(part, self.range) for part in torch.split(self.data, sizes, dim))

    def __add__(self, other: Any) -> Any:
        if not isinstance(other, Ranged):
            return self.floats() + other
        self.range.unite(other.range)
        if self.is_bytes:
            return Ranged(self.range.sum_of(self.dense(), other.dense()), self.range)
        total = self.data + other.data
        self.range.observe(total)
        return Ranged(total, self.range)

    __radd__ = __add__

    def __mul__(self, other: Any) -> Any:
        return self.floats() * _floats(other)

    def __getitem__(self, index: Any) -> Tensor:
        return self.floats()[index]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.floats(), name)

    @classmethod
    def __torch_function__(cls, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """torch calls this in place of a function that was given a Ranged."""
        kwargs = kwargs or {}
        rule = _RULES.get(function)
        result = rule(*args, **kwargs) if rule is not None else None
        return function(*_floats(args), **_floats(kwargs)) if result is None else result


def _floats(given: Any) -> Any:
    """The same arguments with tensors of floats."""
    if isinstance(given, Ranged):
        return given.floats()
    if isinstance(given, dict):
        return {name: _floats(value) for name, value in given.items()}
    if isinstance(given, (list, tuple)):
        return type(given)(_floats(value) for value in given)
    return given


def _cat(tensors: Sequence[Any], dim: int = 0) -> Ranged | None:
    if not all(isinstance(tensor, Ranged) for tensor in tensors):
        return None
    shared = tensors[0].range
    for tensor in tensors[1:]:
        shared.unite(tensor.range)
    return Ranged(torch.cat([tensor.data for tensor in tensors], dim), shared)


def _max_pool(x: Ranged, kernel_size: Any, stride: Any, padding: Any = 0, *args: Any, **kwargs: Any) -> Ranged | None:
    if args or any(kwargs.get(name) for name in ("return_indices", "ceil_mode")) or kwargs.get("dilation", 1) != 1:
        return None
    if not x.is_bytes:
        return Ranged(functional.max_pool2d(x.data, kernel_size, stride, padding), x.range)
    sizes = [[size, size] if isinstance(size, int) else list(size) for size in (kernel_size, stride, padding)]
    return Ranged(torch.ops.quantized.max_pool2d(x.data, *sizes, [1, 1], False), x.range)


def _interpolate(x: Ranged, size: Any = None, scale_factor: Any = None, mode: str = "nearest", **_: Any) -> Any:
    return Ranged(functional.interpolate(x.data, size, scale_factor), x.range) if mode == "nearest" else None


_RULES: Mapping[Any, Callable[..., Ranged | None]] = {
    torch.cat: _cat,
    functional.max_pool2d: _max_pool,
    functional.interpolate: _interpolate,
}
"""Functions that can do with bytes; a rule returns None when it cannot with these arguments."""
