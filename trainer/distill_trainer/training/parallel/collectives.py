"""The process group, DDP, and collectives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from distill_trainer.process.liveness import flight_recorder
from distill_trainer.process.liveness.timeouts import Timeouts
from distill_trainer.process.liveness.watchdog import WaitsFor, knows_nothing
from distill_trainer.training.parallel.environment import Environment

T = TypeVar("T")
_BUCKET_BYTES = 64 << 20
"""Bucket size for broadcasting a state, which has thousands of small tensors."""


@contextmanager
def process_group(environment: Environment, limits: Timeouts) -> Iterator[WaitsFor]:
    """Initialize the process group from torchrun's environment, and destroy it on exit. No-op with one rank.

    With gloo a collective raises an error after `limits.collective` seconds without its peers. With NCCL it never
    returns: the watchdog has to ask what is given here, and c10d's own watchdog, which kills the process without a
    word, acts later. A group of NCCL is destroyed only after success: destroying waits for collectives that the other
    ranks are in, while this one has an error to tell.
    """
    if environment.world_size == 1:
        yield knows_nothing
        return
    device, raises = environment.device, environment.backend == "gloo"
    dist.init_process_group(
        environment.backend,
        timeout=timedelta(seconds=limits.collective if raises else limits.operator),
        device_id=device if device.type == "cuda" else None,
    )
    try:
        yield knows_nothing if raises else flight_recorder.waits_for
    except BaseException:
        if raises:  # at once, so that the others need not wait for this rank's last commit
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()


def replicate(task: nn.Module, environment: Environment) -> nn.Module:
    """Wrap `task` in DDP, which broadcasts rank 0's weights and sums gradients over ranks. Returns `task` itself if
    there is only one rank.

    All parameters must get a gradient in every step. Buffers are not broadcast in every step: running statistics are
    updated only on rank 0 and broadcast before a validation.
    """
    if environment.world_size == 1:
        return task
    device = environment.device
    model = DistributedDataParallel(
        task,
        device_ids=[device.index] if device.type == "cuda" else None,
        find_unused_parameters=False,
        gradient_as_bucket_view=True,
        forward_sync_buffers=False,
    )
    model.register_comm_hook(None, _sum)
    return model


def _sum(_state, bucket):  # type: ignore[no-untyped-def]  # torch refuses annotations that are texts, as here
    """DDP's hook for one bucket. Its own averages; the loss is a sum over shards, and a loss that is multiplied by the
    number of ranks to make up for it overflows in fp16 sooner with more ranks.
    """
    summed = dist.all_reduce(bucket.buffer(), async_op=True)
    assert summed is not None
    return summed.get_future().then(lambda done: done.value()[0])


def no_sync(model: nn.Module, enabled: bool) -> AbstractContextManager[None]:
    """DDP's no_sync() if `enabled`: backward passes inside do not sum gradients over ranks."""
    return model.no_sync() if enabled and isinstance(model, DistributedDataParallel) else nullcontext()


def all_reduce_async(values: Tensor) -> dist.Work | None:
    """Start summing `values` over all ranks in place. Wait for the returned work, unless it is None."""
    return dist.all_reduce(values, async_op=True) if dist.is_initialized() else None


def broadcast_async(values: Tensor, rank: int) -> dist.Work:
    """Start sending a rank's `values` to all others, in place. Wait for the returned work."""
    work = dist.broadcast(values, src=rank, async_op=True)
    assert work is not None
    return work


def broadcast_buffers(model: nn.Module) -> None:
    """Broadcast rank 0's buffers to all ranks, in place."""
    if dist.is_initialized():
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


def any_rank(flag: bool, device: torch.device) -> bool:
    """Whether `flag` is true on any rank. A collective."""
    if not dist.is_initialized():
        return flag
    value = torch.tensor([float(flag)], device=device)
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return bool(value.item())


def gather_on_rank0(value: T) -> list[T] | None:
    """`value` of every rank, in the order of ranks, on rank 0; None on the others. A collective."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
    dist.gather_object(value, values, dst=0)
    return values


def broadcast_state(state: dict[str, Any] | None, device: torch.device) -> dict[str, Any] | None:
    """Broadcast rank 0's nested state: plain values as one object, tensors in buckets. Returns tensors on the CPU.

    The `state` of other ranks is ignored.
    """
    if not dist.is_initialized():
        return state
    tensors: list[Tensor] = []
    skeleton = [_extract_tensors(state, tensors) if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(skeleton, src=0, device=device if device.type == "cuda" else None)
    specs: list[_TensorSpec] = []
    _collect_specs(skeleton[0], specs)
    on_device = [tensor.to(device) for tensor in tensors] or [spec.empty(device) for spec in specs]
    flat = [tensor.as_strided((tensor.numel(),), (1,)) for tensor in on_device if tensor.numel()]
    if flat:
        dist._broadcast_coalesced(dist.group.WORLD, flat, _BUCKET_BYTES, 0)  # type: ignore[arg-type]
    result: dict[str, Any] | None = _insert_tensors(skeleton[0], iter([tensor.cpu() for tensor in on_device]))
    return result


class _TensorSpec:
    """Placeholder for a tensor in the skeleton of a state."""

    def __init__(self, tensor: Tensor) -> None:
        self.shape, self.stride, self.dtype = tuple(tensor.shape), tensor.stride(), tensor.dtype

    def empty(self, device: torch.device) -> Tensor:
        """An empty tensor with the same memory layout: kernels may round differently for another one."""
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=device)


def _extract_tensors(node: Any, tensors: list[Tensor]) -> Any:
    if isinstance(node, Tensor):
        dense = torch.empty_like(node).copy_(node.detach())  # without gaps, so that it can be flattened
        tensors.append(dense)
        return _TensorSpec(dense)
    if isinstance(node, dict):
        return {key: _extract_tensors(value, tensors) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return type(node)(_extract_tensors(value, tensors) for value in node)
    return node


def _collect_specs(node: Any, specs: list[_TensorSpec]) -> None:
    if isinstance(node, _TensorSpec):
        specs.append(node)
    elif isinstance(node, dict):
        for value in node.values():
            _collect_specs(value, specs)
    elif isinstance(node, list | tuple):
        for value in node:
            _collect_specs(value, specs)


def _insert_tensors(node: Any, tensors: Iterator[Tensor]) -> Any:
    if isinstance(node, _TensorSpec):
        return next(tensors)
    if isinstance(node, dict):
        return {key: _insert_tensors(value, tensors) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return type(node)(_insert_tensors(value, tensors) for value in node)
    return node
