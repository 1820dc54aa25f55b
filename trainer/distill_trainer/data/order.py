"""The order of the training data: which image stands where, and what seeds its augmentation.

An epoch is a shuffle of all images. Its positions 0, 1, 2 … are cut into global batches, a global batch into virtual
shards. Nothing here depends on ranks, nodes or workers, and nothing is remembered between calls, so a run can be
continued at any step by any number of processes.

The last global batch of an epoch is filled up from the beginning of the same shuffle, as DistributedSampler fills up
its ranks: every step has the same number of images, and no image is left out. An image that is seen twice in an epoch
stands at two positions and is augmented in two ways.
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

POOL = 16
"""Positions whose images are mixed with each other in a mosaic.

Divides the usual shard sizes, so all images of a pool are decoded by one worker anyway; it does not depend on the
shard size itself, so cutting the same global batch differently changes no sample.
"""


class Token(NamedTuple):
    """All that a worker must know to make one sample."""

    epoch: int
    position: int
    index: int
    """Number of the image in the data set."""
    mosaic: bool
    """Whether mosaic, mixup, cutmix and copy_paste are on in this epoch."""
    pool: tuple[int, ...]
    """Images that a mosaic may take its other tiles from."""


def _digest(*values: int) -> bytes:
    return blake2b(struct.pack(f"<{len(values)}Q", *values), digest_size=16).digest()


@lru_cache(maxsize=4)
def permutation(images: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The shuffle of an epoch. RandomState's streams are frozen by NEP 19, so an upgrade of NumPy keeps the order."""
    generator = np.random.RandomState(np.frombuffer(_digest(seed, epoch), dtype=np.uint32))
    return generator.permutation(images)


def sample_seed(seed: int, epoch: int, position: int) -> int:
    """64 bits that seed everything random about one sample."""
    return int.from_bytes(_digest(seed, epoch, position)[:8], "little")


@dataclass(frozen=True)
class Order:
    """The order of a whole run over `images` images in global batches of `batch`."""

    images: int
    batch: int
    seed: int
    mosaic_epochs: int | None = None
    """Mosaic is on in this many epochs from the start; None keeps it on."""

    def __post_init__(self) -> None:
        if self.images < 1 or self.batch < 1:
            raise ValueError(f"an order needs images and a batch, not {self.images} and {self.batch}")

    @property
    def steps_per_epoch(self) -> int:
        """Global batches in an epoch, the filled-up last one included."""
        return -(-self.images // self.batch)

    def token(self, epoch: int, position: int) -> Token:
        """The sample at a position of an epoch, 0 <= position < steps_per_epoch * batch."""
        shuffled = permutation(self.images, self.seed, epoch)
        first = position - position % POOL
        pool = shuffled[np.arange(first, first + POOL) % self.images]
        return Token(
            epoch=epoch,
            position=position,
            index=int(shuffled[position % self.images]),
            mosaic=self.mosaic_epochs is None or epoch < self.mosaic_epochs,
            pool=tuple(pool.tolist()),
        )

    def shard(self, step: int, shard: int, shard_batch: int) -> list[Token]:
        """Samples of one virtual shard of one step; steps count from 0 over the whole run."""
        epoch, step_of_epoch = divmod(step, self.steps_per_epoch)
        first = step_of_epoch * self.batch + shard * shard_batch
        return [self.token(epoch, position) for position in range(first, first + shard_batch)]


@dataclass(frozen=True)
class Stream:
    """A rank's shard batches from `start_step` up to `end_step`, in order: one batch sampler for a whole run."""

    order: Order
    shard_batch: int
    my_shards: Sequence[int]
    start_step: int
    end_step: int

    def __len__(self) -> int:
        return max(0, self.end_step - self.start_step) * len(self.my_shards)

    def __iter__(self) -> Iterator[list[Token]]:
        for step in range(self.start_step, self.end_step):
            for shard in self.my_shards:
                yield self.order.shard(step, shard, self.shard_batch)
