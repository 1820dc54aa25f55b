"""Makes the results of virtual shards independent of the number of ranks.

A rank processes its shards one after another and sums their gradients. Batch statistics are per shard, and only shard
0 updates the running statistics.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def frozen_running_statistics(model: nn.Module) -> Iterator[None]:
    """Inside, BatchNorm layers in training mode do not update their running statistics."""
    layers = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


def seed_of(seed: int, step: int, shard: int) -> int:
    """Seed of the model's randomness for one shard of one step."""
    return (seed * 1_000_003 + step * 8191 + shard) % 2**63


def seed_shard(seed: int, step: int, shard: int) -> None:
    """Seed the model's randomness for one shard of one step, so that no random state needs to be saved."""
    torch.manual_seed(seed_of(seed, step, shard))
