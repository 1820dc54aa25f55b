"""What a byte stands for."""

from __future__ import annotations

import torch
from torch import Tensor

_LARGEST = 255
_NARROWEST = 1e-6
"""Of a range, so that a tensor that was always zero has a scale."""


class Range:
    """The interval, around 0, that 256 evenly spaced values cover.

    Tensors that are concatenated or added share one range, so that their bytes can be used as they are.
    """

    def __init__(self) -> None:
        self._low = self._high = 0.0
        self._part_of: Range | None = None

    def unite(self, other: Range) -> None:
        """Be one range with `other` from now on, which holds the values of both."""
        mine, theirs = self._whole(), other._whole()
        if mine is not theirs:
            mine._low, mine._high = min(mine._low, theirs._low), max(mine._high, theirs._high)
            theirs._part_of = mine

    def observe(self, values: Tensor) -> None:
        """Widen the range until it holds all `values`."""
        whole, (low, high) = self._whole(), values.aminmax()
        whole._low, whole._high = min(whole._low, float(low)), max(whole._high, float(high))

    @property
    def scale(self) -> float:
        """The distance between the values of two neighbouring bytes."""
        whole = self._whole()
        return max(whole._high - whole._low, _NARROWEST) / _LARGEST

    @property
    def zero(self) -> int:
        """The byte that stands for exactly 0."""
        return round(-self._whole()._low / self.scale)

    def bytes_of(self, values: Tensor) -> Tensor:
        """The nearest byte to each value; the outermost one for values outside of the range."""
        offset = torch.full((), self.zero + 0.5)
        return torch.add(offset, values, alpha=1 / self.scale).clamp_(0, _LARGEST).to(torch.uint8)

    def values_of(self, data: Tensor) -> Tensor:
        """What the bytes stand for, in fp32."""
        return data.mul(self.scale).sub_(self.zero * self.scale)

    def sum_of(self, one: Tensor, other: Tensor) -> Tensor:
        """The bytes of the sums of what two tensors of bytes stand for."""
        return one.to(torch.int16).add_(other).sub_(self.zero).clamp_(0, _LARGEST).to(torch.uint8)

    def _whole(self) -> Range:
        return self if self._part_of is None else self._part_of._whole()
