"""Data loader workers that end exactly when the trainer does.

They are forked: spawned workers would each import torch and ultralytics (seconds of CPU time per restart) and hold
their own copy of all labels. Forking a process with threads is safe here because the child runs no OpenMP region (one
thread), does not use CUDA and does not log. A worker inherits the trainer's sockets, so the peers of a killed trainer
would not see its connections close while a worker runs; therefore the kernel kills the worker with the trainer.
"""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from math import ceil
from typing import Any, Final

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from distill_trainer.data.loading.slots import PipeCounts, Piped, Slots
from distill_trainer.process.liveness.stop import stop_signals_blocked
from distill_trainer.process.machine.prctl import PR_SET_PDEATHSIG, prctl

log = logging.getLogger(__name__)

Batch = dict[str, Any]

PREFETCH: Final = 4
"""Batches that each worker loads in advance."""
_NOTHING: Final = torch.empty(0, dtype=torch.uint8)


def _init_worker(parent: int, _worker: int) -> None:
    """Make the worker die with the trainer."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the trainer died before prctl
        os._exit(1)


def _collate_to_send(slots: Slots | None, collate: Callable[[list[Any]], Batch], samples: list[Any]) -> Batch:
    """In a worker, collate with the images in a slot, if there is a free one, and without shared memory of torch's."""
    worker, images = get_worker_info(), None
    assert worker is not None
    if slots is not None and (images := slots.stack([sample["img"] for sample in samples], worker.id)) is not None:
        samples = [sample | {"img": _NOTHING} for sample in samples]
    batch = collate(samples) | ({"img": images} if images is not None else {})
    return {key: Piped(value) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}


def slots_per_worker(workers: int, held: int) -> int:
    """Those for what a worker loads in advance, what it is at, and what the receiver holds."""
    return PREFETCH + 1 + ceil(held / workers)


class BatchLoader:
    """Loads a data set's batches with processes that live until `close`; with 0 workers in this process.

    Each iteration yields all batches of `batch_sampler`, collated, in order, and uses the same workers.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        batch_sampler: Any,
        collate: Callable[[list[Any]], Batch],
        *,
        workers: int,
        images_bytes: int = 0,
        held: int = 1,
        pin_memory: bool = False,
    ) -> None:
        """`images_bytes`: maximum size of a batch's images, 0 for samples without. `held`: the number of batches that
        the receiver keeps at a time; those beyond may be sent more slowly.
        """
        self._slots: Slots | None = None
        self._told = PipeCounts(0, 0)
        if workers > 0:
            if images_bytes:
                self._slots = Slots(workers, slots_per_worker(workers, held), images_bytes)
            collate = partial(_collate_to_send, self._slots, collate)
        self._loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_sampler=batch_sampler,
            collate_fn=collate,
            num_workers=workers,
            prefetch_factor=PREFETCH if workers > 0 else None,
            persistent_workers=workers > 0,
            worker_init_fn=partial(_init_worker, os.getpid()),
            multiprocessing_context="fork" if workers > 0 else None,
            generator=torch.Generator(),  # creating a loader must not change the global generator
            pin_memory=pin_memory,
        )
        self._iterator: Any = None
        self._processes: list[multiprocessing.process.BaseProcess] = []
        # At exit multiprocessing would send SIGTERM, which the workers block, and wait forever.
        atexit.register(self.close)

    def __iter__(self) -> Iterator[Batch]:
        """All batches. An iteration that was left early is abandoned by the next one."""
        before = set(multiprocessing.active_children())
        with stop_signals_blocked():  # only the trainer handles stop signals
            self._iterator = iter(self._loader)
        self._processes += [child for child in multiprocessing.active_children() if child not in before]
        return self._iterator

    def tell_piped(self, when: str) -> None:
        """Say in the log how many batches came through pipes since the last call, if any did."""
        if self._slots is None:
            return
        now, before = self._slots.piped(), self._told
        no_slot, too_large = now.no_slot - before.no_slot, now.too_large - before.too_large
        self._told = now
        if no_slot + too_large:
            log.warning(
                "%s: %d batches came through pipes, which is slower than shared memory: %d found no free slot, %d did "
                'not fit one; "Shared memory" in docs/gpu.md says what to do',
                when, no_slot + too_large, no_slot, too_large,
            )  # fmt: skip

    def close(self) -> None:
        """Shut the workers down, and kill those that do not end."""
        atexit.unregister(self.close)
        if self._processes:
            self._iterator._shutdown_workers()  # so that torch does not treat their end as a failure
        for process in self._processes:
            if process.is_alive():
                process.kill()
        for process in self._processes:
            process.join()
        self._processes = []
