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


class Buffers:
    """The floating-point buffers of a model, which its forward pass changes in place."""

    def __init__(self, model: nn.Module, average: nn.Module) -> None:
        """`average`: a model with the same buffers. Both stay where they are."""
        named = {name: buffer for name, buffer in model.named_buffers() if buffer.is_floating_point()}
        averages = dict(average.named_buffers())
        self._buffers, self._averages = list(named.values()), [averages[name] for name in named]
        self._sizes = [buffer.numel() for buffer in self._buffers]
        self._repeats = torch.tensor(self._sizes, device=self._buffers[0].device) if named else None

    @torch.no_grad()
    def restore_unless(self, applied: Tensor) -> None:
        """Unless `applied` (0-dim bool on their device), replace buffers that are not finite by the average's."""
        if self._repeats is None:
            return
        finite = torch.stack([norm.isfinite() for norm in torch._foreach_norm(self._buffers, torch.inf)])
        good = (finite | applied).repeat_interleave(self._repeats, output_size=sum(self._sizes))
        parts = torch.where(good, _flat(self._buffers), _flat(self._averages)).split(self._sizes)
        torch._foreach_copy_(self._buffers, [part.view_as(b) for part, b in zip(parts, self._buffers, strict=True)])


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def _as_integers(tensor: Tensor) -> Tensor:
    return tensor.detach().view(_INTEGERS[tensor.itemsize])
