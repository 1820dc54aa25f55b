"""Decides on the device whether changes count, so that the host need not wait for the decision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


@contextmanager
def undone_unless(applied: Tensor, tensors: Sequence[Tensor]) -> Iterator[None]:
    """Undo what happens inside to `tensors`, bit for bit, unless `applied` (0-dim bool, on their device) is true.

    Takes the memory of a copy of them meanwhile.
    """
    # Selected by multiplication, in a few kernels for all tensors; as integers, because NaN times 0 is NaN.
    flag, integers = applied.to(torch.int32), [_as_integers(tensor) for tensor in tensors]
    kept = torch._foreach_mul(integers, 1 - flag)
    yield
    torch._foreach_mul_(integers, flag)
    torch._foreach_add_(integers, kept)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Parameters and state of an optimizer."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    states = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    return [*parameters, *states]


@torch.no_grad()
def restore_buffers(model: nn.Module, average: nn.Module, applied: Tensor) -> None:
    """Unless `applied` (0-dim bool), replace non-finite floating-point buffers of `model` by those of `average`."""
    named = {name: buffer for name, buffer in model.named_buffers() if buffer.is_floating_point()}
    if not named:
        return
    averages, buffers = dict(average.named_buffers()), list(named.values())
    finite = torch.stack([norm.isfinite() for norm in torch._foreach_norm(buffers, torch.inf)])
    sizes = [buffer.numel() for buffer in buffers]
    repeats = torch.tensor(sizes).to(applied.device, non_blocking=True)
    good = (finite | applied).repeat_interleave(repeats, output_size=sum(sizes))
    flat = torch.where(good, _flat(buffers), _flat([averages[name] for name in named]))
    torch._foreach_copy_(buffers, [part.view_as(b) for part, b in zip(flat.split(sizes), buffers, strict=True)])


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def _as_integers(tensor: Tensor) -> Tensor:
    return tensor.detach().view(_INTEGERS[tensor.itemsize])
