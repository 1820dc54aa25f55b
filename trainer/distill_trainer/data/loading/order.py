"""The order of the training samples, and the seeds of their augmentation. Pure functions.

An epoch is a shuffle of all images. Its positions 0, 1, 2 … are divided into global batches, and each global batch into
virtual shards. Nothing depends on ranks, nodes or workers, and there is no state, so any number of processes can resume
a run at any step.

The last global batch of an epoch is padded from the start of the same shuffle, as DistributedSampler does, so every
step has the same number of images and no image is left out. An image that occurs twice has two positions, with
different augmentation.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MOSAIC_POOL = 16
"""Positions whose images can be tiles of each other's mosaics.

It divides the usual shard sizes, so one worker decodes all images of a pool. It does not depend on the shard size, so
dividing the global batch differently changes no sample.
"""


class SampleSpec(NamedTuple):
    """Everything a worker needs to make one sample."""

    epoch: int
    position: int
    index: int  # type: ignore[assignment]  # hides tuple's method
    """Number of the image in the data set."""
    mosaic: bool
    """Whether mosaic, mixup, cutmix and copy_paste are enabled in this epoch."""
    pool: tuple[int, ...]
    """Images that can be the other tiles of a mosaic."""


def _digest(*values: int) -> bytes:
    return blake2b(struct.pack(f"<{len(values)}Q", *values), digest_size=16).digest()


@lru_cache(maxsize=4)
def permutation(images: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The shuffle of an epoch. NEP 19 freezes RandomState's streams, so the order is the same with every NumPy."""
    generator = np.random.RandomState(np.frombuffer(_digest(seed, epoch), dtype=np.uint32))
    return generator.permutation(images)


def sample_seed(seed: int, epoch: int, position: int) -> int:
    """The 64-bit seed of one sample's augmentation."""
    return int.from_bytes(_digest(seed, epoch, position)[:8], "little")


@dataclass(frozen=True)
class SampleOrder:
    """The samples of a whole run over `images` images in global batches of `batch`."""

    images: int
    batch: int
    seed: int
    mosaic_epochs: int | None = None
    """Number of epochs with mosaic, from the start; None: all."""

    def __post_init__(self) -> None:
        if self.images < 1 or self.batch < 1:
            raise ValueError(f"images and batch must be at least 1, not {self.images} and {self.batch}")

    @property
    def steps_per_epoch(self) -> int:
        """Global batches in an epoch, including the padded last one."""
        return -(-self.images // self.batch)

    def sample(self, epoch: int, position: int) -> SampleSpec:
        """The sample at a position of an epoch, 0 <= position < steps_per_epoch * batch."""
        shuffled = permutation(self.images, self.seed, epoch)
        first = position - position % MOSAIC_POOL
        pool = shuffled[np.arange(first, first + MOSAIC_POOL) % self.images]
        return SampleSpec(
            epoch=epoch,
            position=position,
            index=int(shuffled[position % self.images]),
            mosaic=self.mosaic_epochs is None or epoch < self.mosaic_epochs,
            pool=tuple(pool.tolist()),
        )

    def shard(self, step: int, shard: int, shard_batch: int) -> list[SampleSpec]:
        """The samples of one virtual shard of one step; steps count from 0 over the whole run."""
        epoch, step_of_epoch = divmod(step, self.steps_per_epoch)
        first = step_of_epoch * self.batch + shard * shard_batch
        return [self.sample(epoch, position) for position in range(first, first + shard_batch)]


@dataclass(frozen=True)
class ShardBatchSampler:
    """A batch sampler for a whole run: a rank's shard batches from `start_step` up to `end_step`, in order."""

    order: SampleOrder
    shard_batch: int
    local_shards: Sequence[int]
    start_step: int
    end_step: int

    def __len__(self) -> int:
        return max(0, self.end_step - self.start_step) * len(self.local_shards)

    def __iter__(self) -> Iterator[list[SampleSpec]]:
        for step in range(self.start_step, self.end_step):
            for shard in self.local_shards:
                yield self.order.shard(step, shard, self.shard_batch)
