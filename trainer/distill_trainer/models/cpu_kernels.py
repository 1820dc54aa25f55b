"""What oneDNN needs to compute fast on CPUs: dense gradients for the student, and packed weights for the teacher."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

_ACTIVATIONS: dict[type[nn.Module], str] = {nn.SiLU: "swish", nn.Identity: "none"}
"""What oneDNN computes in the same call as a convolution."""


def make_gradients_dense(student: nn.Module) -> None:
    """Let no gradient in bf16 reach SiLU's backward pass as a slice of another map, as concatenation hands them out.

    That kernel takes up to ten times as long for channels-last slices of few channels, with the same bits. In fp32 it
    is as fast, and rounds differently.
    """
    for module in student.modules():
        if isinstance(module, Conv) and isinstance(module.act, nn.SiLU):
            module.register_forward_hook(_with_dense_gradient)


def _with_dense_gradient(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
    if output.requires_grad and output.dtype is torch.bfloat16:
        output.register_hook(_dense)


def _dense(gradient: Tensor) -> Tensor:
    return gradient.contiguous(memory_format=torch.channels_last)


def pack_convolutions(frozen: nn.Module) -> None:
    """Let the fused convolutions of a frozen model keep their weights as oneDNN wants them for the shape of their
    inputs, instead of rearranging them in every call, and compute SiLU in the same call, which in bf16 rounds less.

    These are the operations that Inductor compiles models to. Does nothing where oneDNN has not got them in the model's
    format.
    """
    for module in frozen.modules():
        if isinstance(module, Conv) and not hasattr(module, "bn") and type(module.act) in _ACTIVATIONS:
            convolution: Any = module.conv
            if _is_packable(convolution.weight.dtype):
                packed: Any = _Packed(convolution, _ACTIVATIONS[type(module.act)])
                module.forward = packed  # as Ultralytics does when it fuses a module


def _is_packable(dtype: torch.dtype) -> bool:
    if not torch.backends.mkldnn.is_available() or torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        return False
    return dtype is torch.float32 or (dtype is torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


class _Packed:
    """A convolution with its activation, whose weights are packed for the inputs of the call before."""

    def __init__(self, convolution: nn.Conv2d, activation: str) -> None:
        self._convolution, self._activation = convolution, activation
        self._shape: torch.Size | None = None
        self._weight: Tensor | None = None

    def __call__(self, inputs: Tensor) -> Tensor:
        layer = self._convolution
        sizes = layer.padding, layer.stride, layer.dilation, layer.groups
        if inputs.shape != self._shape:
            self._weight = torch.ops.mkldnn._reorder_convolution_weight(layer.weight, *sizes, inputs.shape)
            self._shape = inputs.shape
        outputs: Tensor = torch.ops.mkldnn._convolution_pointwise(
            inputs, self._weight, layer.bias, *sizes, self._activation, [], ""
        )
        return outputs
