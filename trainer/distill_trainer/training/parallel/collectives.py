"""Collectives: the process group, the DDP replica, and moving state from rank 0 to the others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from distill_trainer.training.parallel.environment import Environment

_BUCKET_BYTES = 64 << 20
"""A state has thousands of tensors, and a collective for each takes longer than its bytes do."""


@contextmanager
def process_group(environment: Environment, timeout_seconds: float) -> Iterator[None]:
    """The gang's process group, from torchrun's rendezvous; nothing when there is one rank only.

    A peer that does not answer within `timeout_seconds` makes the waiting collective fail.
    """
    if environment.world_size == 1:
        yield
        return
    device = environment.device
    dist.init_process_group(
        environment.backend,
        timeout=timedelta(seconds=timeout_seconds),
        device_id=device if device.type == "cuda" else None,
    )
    try:
        yield
    finally:  # a worker that leaves without this may abort with SIGABRT instead of its own exit code
        dist.destroy_process_group()


def replicate(task: nn.Module, environment: Environment) -> nn.Module:
    """`task` under DDP, or as it is when there is one rank only. Rank 0's weights become everybody's.

    Every parameter takes part in every step, so unused ones are not searched for. Running statistics come from shard
    0 alone and are handed out before a validation, not in every step.
    """
    if environment.world_size == 1:
        return task
    device = environment.device
    return DistributedDataParallel(
        task,
        device_ids=[device.index] if device.type == "cuda" else None,
        find_unused_parameters=False,
        gradient_as_bucket_view=True,
        forward_sync_buffers=False,
    )


def gradients_stay_local(model: nn.Module, local: bool) -> AbstractContextManager[None]:
    """Inside, a backward pass adds to the gradients without averaging them over the ranks, if `local`."""
    return model.no_sync() if local and isinstance(model, DistributedDataParallel) else nullcontext()


def sum_over_ranks(values: Tensor) -> dist.Work | None:
    """Start adding up `values` in place over all ranks; wait on the result before reading it, unless it is None."""
    return dist.all_reduce(values, async_op=True) if dist.is_initialized() else None


def broadcast_buffers(model: nn.Module) -> None:
    """Give every rank rank 0's buffers, in place."""
    if dist.is_initialized():
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


def any_rank(asked: bool, device: torch.device) -> bool:
    """Whether `asked` is true on any rank; the same answer on all of them."""
    if not dist.is_initialized():
        return asked
    flag = torch.tensor([float(asked)], device=device)
    dist.all_reduce(flag, op=dist.ReduceOp.MAX)
    return bool(flag.item())


def broadcast_state(state: dict[str, Any] | None, device: torch.device) -> dict[str, Any] | None:
    """Rank 0's nested state on every rank: plain values as one object, tensors in buckets over the fast path.

    The other ranks' `state` is ignored. Tensors arrive on the CPU.
    """
    if not dist.is_initialized():
        return state
    tensors: list[Tensor] = []
    skeleton = [_take_tensors(state, tensors) if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(skeleton, src=0, device=device if device.type == "cuda" else None)
    described: list[_Described] = []
    _find_described(skeleton[0], described)
    moved = [tensor.to(device) for tensor in tensors] or [description.empty(device) for description in described]
    flat = [tensor.as_strided((tensor.numel(),), (1,)) for tensor in moved if tensor.numel()]
    if flat:
        dist._broadcast_coalesced(dist.group.WORLD, flat, _BUCKET_BYTES, 0)
    result: dict[str, Any] | None = _put_tensors(skeleton[0], iter([tensor.cpu() for tensor in moved]))
    return result


class _Described:
    """Stands for a tensor in the skeleton of a state."""

    def __init__(self, tensor: Tensor) -> None:
        self.shape, self.stride, self.dtype = tuple(tensor.shape), tensor.stride(), tensor.dtype

    def empty(self, device: torch.device) -> Tensor:
        """Room for the tensor, in its own memory layout: another one might round differently."""
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=device)


def _take_tensors(node: Any, tensors: list[Tensor]) -> Any:
    if isinstance(node, Tensor):
        dense = torch.empty_like(node).copy_(node.detach())  # without gaps, so that its memory is one flat piece
        tensors.append(dense)
        return _Described(dense)
    if isinstance(node, dict):
        return {key: _take_tensors(value, tensors) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return type(node)(_take_tensors(value, tensors) for value in node)
    return node


def _find_described(node: Any, found: list[_Described]) -> None:
    if isinstance(node, _Described):
        found.append(node)
    elif isinstance(node, dict):
        for value in node.values():
            _find_described(value, found)
    elif isinstance(node, list | tuple):
        for value in node:
            _find_described(value, found)


def _put_tensors(node: Any, tensors: Iterator[Tensor]) -> Any:
    if isinstance(node, _Described):
        return next(tensors)
    if isinstance(node, dict):
        return {key: _put_tensors(value, tensors) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return type(node)(_put_tensors(value, tensors) for value in node)
    return node
