"""A frozen model's convolutions on CPUs: weights lie as oneDNN reads them, so that no step has to rearrange them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distill_trainer.convolutions import ACTIVATIONS, replace_convolutions


def packable(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether oneDNN has convolutions for `dtype` on this CPU."""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    oneDNN = torch.ops.mkldnn  # noqa: N806  (its name)
    supported = {
        torch.float32: lambda: True,
        torch.bfloat16: oneDNN._is_mkldnn_bf16_supported,
        torch.float16: oneDNN._is_mkldnn_fp16_supported,
    }
    return dtype in supported and supported[dtype]()


@torch.no_grad()
def pack(model: nn.Module, look: Callable[[Tensor], object], images: Sequence[int]) -> None:
    """Pack the convolutions of `model`, which is frozen and fused with its BatchNorm; see `packable`.

    `look` runs the model on images; `images` is their shape [B, C, H, W]. oneDNN chooses a layout for one shape of
    inputs and computes others with it, too. The shape is the job's, not that of an attempt's first batch, so that all
    attempts compute with the same layout, bit for bit.
    """
    convolutions = replace_convolutions(model, PackedConv)
    look(torch.zeros(1, *images[1:]))
    for convolution in convolutions:
        convolution.settle(images[0])


class PackedConv(nn.Module):
    """Convolution, bias and activation in one call: the convolution that it was given, until it settles."""

    def __init__(self, conv: nn.Conv2d, activation: nn.Module) -> None:
        super().__init__()
        self._conv: nn.Conv2d | None = conv
        self._activation = activation
        self._size: torch.Size | None = None
        self._form: list[Any] = [conv.padding, conv.stride, conv.dilation, conv.groups]

    def forward(self, x: Tensor) -> Tensor:
        """[B, Cin, H, W] -> [B, Cout, H', W']."""
        if self._conv is not None:
            self._size = x.shape
            result: Tensor = self._activation(self._conv(x))
            return result
        activation = ACTIVATIONS[type(self._activation)]
        result = torch.ops.mkldnn._convolution_pointwise(x, self._weight, self._bias, *self._form, activation, [], "")
        return result

    def settle(self, batch: int) -> None:
        """Pack the weights for `batch` inputs of the size that it last saw; those as they were are given back."""
        assert self._conv is not None, "it has settled"
        assert self._size is not None, "it has seen nothing"
        conv, self._conv = self._conv, None
        size = [batch, *self._size[1:]]
        self._weight = torch.ops.mkldnn._reorder_convolution_weight(conv.weight, *self._form, size)
        self._bias = conv.bias
