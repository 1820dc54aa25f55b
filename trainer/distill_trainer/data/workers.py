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
import shutil
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from distill_api.spec.shared_memory import PREFETCH, in_flight_bytes
from distill_trainer.data.slots import Slots
from distill_trainer.process.liveness.stop import stop_signals_blocked
from distill_trainer.process.machine.prctl import PR_SET_PDEATHSIG, prctl

log = logging.getLogger(__name__)

Batch = dict[str, Any]

SHARED_MEMORY = Path("/dev/shm")


def _init_worker(parent: int, _worker: int) -> None:
    """Make the worker die with the trainer."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the trainer died before prctl
        os._exit(1)


def fits_shared_memory(needed: int, reserved: int = 0) -> bool:
    """Whether batches of `needed` bytes in total fit into what is free of /dev/shm beside `reserved` bytes for others.
    Logs a warning if they do not.
    """
    free = (shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else 0) - reserved
    if needed <= free:
        return True
    log.warning(
        "%s has %.0f MiB free, and batches on their way need %.0f MiB: they go through pipes, which is slower; enlarge "
        "the volume shm in spec.template, raise the container's memory limit, or lower training.workers",
        SHARED_MEMORY,
        free / 2**20,
        needed / 2**20,
    )
    return False


def _collate_to_numpy(collate: Callable[[list[Any]], Batch], samples: list[Any]) -> Batch:
    """Collate to NumPy arrays, which multiprocessing sends through a pipe instead of shared memory."""
    batch = collate(samples)
    if get_worker_info() is None:
        return batch
    return {key: value.numpy() if isinstance(value, torch.Tensor) else value for key, value in batch.items()}


def _collate_to_slot(slots: Slots, collate: Callable[[list[Any]], Batch], samples: list[Any]) -> Batch:
    """Collate, with the images stacked in shared memory that is used again."""
    worker = get_worker_info()
    if worker is None or not isinstance(samples[0], dict):
        return collate(samples)
    stacked = slots.stack([sample["img"] for sample in samples], worker.id)
    if stacked is None:
        return collate(samples)
    nothing = torch.empty(0, dtype=torch.uint8)
    return collate([sample | {"img": nothing} for sample in samples]) | {"img": stacked}


def _to_tensors(pin_memory: bool, on_piped: Callable[[], None], batch: Batch) -> Batch:
    on_piped()

    def tensor(value: Any) -> Any:
        if not isinstance(value, np.ndarray):
            return value
        converted = torch.from_numpy(value)
        return converted.pin_memory() if pin_memory else converted

    return {key: tensor(value) for key, value in batch.items()}


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
        batch_bytes: int,
        ranks_on_node: int,
        pin_memory: bool,
        on_piped: Callable[[], None] = lambda: None,
    ) -> None:
        """`batch_bytes` is the size of one batch's images. If free shared memory is too small for all batches that this
        process's open loaders can have in flight, they are sent through pipes, which is slower; `on_piped` is called
        for each.
        """
        needed = in_flight_bytes(batch_bytes, workers, ranks_on_node)
        self._pipes = workers > 0 and not fits_shared_memory(needed, sum(loader.reserved for loader in _OPEN))
        self.reserved = 0 if self._pipes else needed
        """Bytes of /dev/shm that the batches in flight on this node can take."""
        self._pin_memory, self._on_piped = pin_memory, on_piped
        if self._pipes:
            collate = partial(_collate_to_numpy, collate)
        elif workers > 0:
            collate = partial(_collate_to_slot, Slots(workers, PREFETCH + 2, batch_bytes), collate)
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
            pin_memory=pin_memory and not self._pipes,
        )
        self._iterator: Any = None
        self._processes: list[multiprocessing.process.BaseProcess] = []
        _OPEN.append(self)
        # At exit multiprocessing would send SIGTERM, which the workers block, and wait forever.
        atexit.register(self.close)

    def __iter__(self) -> Iterator[Batch]:
        """All batches. An iteration that was left early is abandoned by the next one."""
        before = set(multiprocessing.active_children())
        with stop_signals_blocked():  # only the trainer handles stop signals
            self._iterator = iter(self._loader)
        self._processes += [child for child in multiprocessing.active_children() if child not in before]
        if not self._pipes:
            return self._iterator  # type: ignore[no-any-return]
        return map(partial(_to_tensors, self._pin_memory, self._on_piped), self._iterator)

    def close(self) -> None:
        """Shut the workers down, and kill those that do not end."""
        atexit.unregister(self.close)
        if self in _OPEN:
            _OPEN.remove(self)
        if self._processes:
            self._iterator._shutdown_workers()  # so that torch does not treat their end as a failure
        for process in self._processes:
            if process.is_alive():
                process.kill()
        for process in self._processes:
            process.join()
        self._processes = []


_OPEN: list[BatchLoader] = []
"""This process's open loaders."""
