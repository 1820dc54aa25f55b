"""What a model does with its shards so that the result does not depend on the number of ranks.

A rank runs its shards one after another and adds up their gradients. Batch statistics are per shard, and only shard
0 moves the running statistics.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def running_statistics(model: nn.Module, update: bool) -> Iterator[None]:
    """Inside, BatchNorm layers in training mode move their running statistics only if `update`."""
    if update:
        yield
        return
    layers = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


def seed_of(seed: int, step: int, shard: int) -> int:
    """Seed of whatever is random inside the model for one shard of one step."""
    return (seed * 1_000_003 + step * 8191 + shard) % 2**63


def seed_shard(seed: int, step: int, shard: int) -> None:
    """Make randomness inside the model a function of the shard, so that nothing of it needs to be saved."""
    torch.manual_seed(seed_of(seed, step, shard))
