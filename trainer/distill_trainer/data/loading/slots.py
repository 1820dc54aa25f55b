"""How batches come from data loader workers to their rank: images in slots, the rest through the worker's pipe.

Slots are anonymous shared memory, which is used again: to get and clear new pages takes longer than the copy. A worker
writes a batch's images into one of its own slots and sends only the slot's number. The slot is free again once the
receiver has dropped the tensor. Without a free slot the images go through the pipe too, so that nothing waits, and no
batch is overwritten while it is used. Labels are small, and cheaper to send than to map from /dev/shm, as torch would.
"""

from __future__ import annotations

import itertools
import mmap
import struct
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

_KEYS = itertools.count()
_OPEN: weakref.WeakValueDictionary[int, Slots] = weakref.WeakValueDictionary()
"""By key; workers inherit them."""
_COUNTS = struct.Struct("<QQ")


class PipeCounts(NamedTuple):
    """Batches whose images went through a pipe."""

    no_slot: int
    """Because no slot was free."""
    too_large: int
    """Because they do not fit a slot."""


class Slots:
    """`per_worker` slots of `size` bytes for each worker. Create them before the workers, which must be forks."""

    def __init__(self, workers: int, per_worker: int, size: int) -> None:
        self._per_worker, self._size, self._count = per_worker, size, workers * per_worker
        counts = workers * _COUNTS.size
        # Before the slots a byte for each, 1 while it is used, and then each worker's counts of batches in none.
        self._first = -(-(self._count + counts) // mmap.PAGESIZE) * mmap.PAGESIZE
        self._workers = workers
        self._memory = mmap.mmap(-1, self._first + self._count * size)  # pages exist once they are written
        self._key = next(_KEYS)
        _OPEN[self._key] = self

    def stack(self, images: Sequence[Tensor], worker: int) -> Sent | None:
        """In a worker, stack uint8 `images` in a free slot. None if none is free, or if they do not fit."""
        shape = (len(images), *images[0].shape)
        if images[0].dtype != torch.uint8 or images[0].numel() * len(images) > self._size:
            self._count_piped(worker, PipeCounts(0, 1))
            return None
        mine = range(worker * self._per_worker, (worker + 1) * self._per_worker)
        slot = next((slot for slot in mine if not self._memory[slot]), None)
        if slot is None:
            self._count_piped(worker, PipeCounts(1, 0))
            return None
        self._memory[slot] = 1
        torch.stack(list(images), out=torch.from_numpy(self._array(slot, shape)))
        return Sent(self._key, slot, shape)

    def piped(self) -> PipeCounts:
        """Batches of all workers so far that were in no slot."""
        each = [self._piped_of(worker) for worker in range(self._workers)]
        return PipeCounts(sum(one.no_slot for one in each), sum(one.too_large for one in each))

    def _piped_of(self, worker: int) -> PipeCounts:
        return PipeCounts(*_COUNTS.unpack_from(self._memory, self._count + worker * _COUNTS.size))

    def _count_piped(self, worker: int, more: PipeCounts) -> None:
        before = self._piped_of(worker)
        counts = before.no_slot + more.no_slot, before.too_large + more.too_large
        _COUNTS.pack_into(self._memory, self._count + worker * _COUNTS.size, *counts)

    def lend(self, slot: int, shape: Sequence[int]) -> Tensor:
        """The content of a slot, which is free again once neither this tensor nor a view of it exists."""
        array = self._array(slot, shape)
        weakref.finalize(array, self._release, slot).atexit = False
        return torch.from_numpy(array)

    def _array(self, slot: int, shape: Sequence[int]) -> Any:
        start = self._first + slot * self._size
        return np.ndarray(tuple(shape), np.uint8, self._memory, offset=start)

    def _release(self, slot: int) -> None:
        self._memory[slot] = 0


@dataclass(frozen=True)
class Piped:
    """A tensor on its way from a worker, in the message itself: unpickled, it is a tensor."""

    tensor: Tensor

    def __reduce__(self) -> tuple[Any, ...]:
        return torch.from_numpy, (self.tensor.numpy(),)


@dataclass(frozen=True)
class Sent:
    """A batch's images on their way from a worker, in a slot: unpickled, it is a tensor."""

    key: int
    slot: int
    shape: tuple[int, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (self.key, self.slot, self.shape)


def _received(key: int, slot: int, shape: tuple[int, ...]) -> Tensor:
    return _OPEN[key].lend(slot, shape)
