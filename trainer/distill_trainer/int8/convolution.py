"""A convolution in 8 bits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from distill_trainer.convolutions import ACTIVATIONS
from distill_trainer.int8.ranged import Ranged
from distill_trainer.int8.ranges import Range

_LARGEST_WEIGHT = 127


class Int8Conv(nn.Module):
    """Convolution, bias and activation: in fp32, watching ranges, until it settles; in bytes from then on."""

    def __init__(self, conv: nn.Conv2d, activation: nn.Module) -> None:
        super().__init__()
        self.keeps_floats = False
        """Whether the results are needed as floats, too."""
        self._conv: nn.Conv2d | None = conv
        self._activation = activation
        self._range = Range()
        self._inputs = Range()  # of the tensor that it gets, or, where it gets tensors of floats, its own
        self._shape: torch.Size | None = None

    def forward(self, x: Tensor | Ranged) -> Ranged:
        """[B, Cin, H, W] -> [B, Cout, H', W']."""
        if self._conv is not None:
            return self._watch(self._conv, x)
        data = x.dense() if isinstance(x, Ranged) else self._inputs.bytes_of(x)
        if not self.keeps_floats:
            return Ranged(self._convolve(data, torch.uint8), self._range)
        floats = self._convolve(data, torch.float32)
        return Ranged(self._range.bytes_of(floats), self._range, exact=floats)

    def _watch(self, conv: nn.Conv2d, x: Tensor | Ranged) -> Ranged:
        if isinstance(x, Ranged):
            self._inputs, x = x.range, x.data
        else:
            self._inputs.observe(x)
        self._shape = x.shape
        floats = self._activation(conv(x))
        self._range.observe(floats)
        return Ranged(floats, self._range, maker=self)

    def settle(self, batch: int) -> None:
        """Take the ranges for final and the weights to bytes; those in fp32 are given back.

        The bytes are laid out for `batch` inputs of the size that it last saw.
        """
        assert self._conv is not None, "it has settled"
        assert self._shape is not None, "it has seen nothing"
        conv, self._conv = self._conv, None
        scales = (conv.weight.abs().amax(dim=(1, 2, 3)) / _LARGEST_WEIGHT).clamp_min(torch.finfo(torch.float32).tiny)
        weights = (conv.weight / scales.view(-1, 1, 1, 1)).round().to(torch.int8)
        self._form: list[Any] = [conv.stride, conv.padding, conv.dilation, conv.groups]
        inputs = (self._inputs.scale, self._inputs.zero)
        shape = [batch, *self._shape[1:]]
        packed = torch.ops.onednn.qconv_prepack(weights, scales, *inputs, *self._form, shape)
        self._weights = (packed, scales, torch.zeros(len(scales), dtype=torch.int32), conv.bias)

    def _convolve(self, data: Tensor, dtype: torch.dtype) -> Tensor:
        inputs = (data, self._inputs.scale, self._inputs.zero)
        scale, zero = (self._range.scale, self._range.zero) if dtype is torch.uint8 else (1.0, 0)
        activation = ACTIVATIONS[type(self._activation)]
        result: Tensor = torch.ops.onednn.qconv2d_pointwise(
            *inputs, *self._weights, *self._form, scale, zero, dtype, activation, [], None
        )
        return result
