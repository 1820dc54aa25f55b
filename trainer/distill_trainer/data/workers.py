"""Data-loading processes that leave when the trainer does and not before.

They are forked. Spawned or fork-served workers would each import torch and ultralytics (seconds of CPU per restart,
when restart time is what preemption costs) and hold their own copy of all labels. What makes forking a process with
threads dangerous is kept away from the child: it runs no OpenMP region (one thread), touches no CUDA, and logs
nothing. It inherits the trainer's sockets, so a killed trainer's peers would not see the connection break while a
worker lives; therefore the kernel is told to kill the worker together with the trainer.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from distill_trainer.process.liveness.stop import deaf_children
from distill_trainer.process.machine.prctl import PR_SET_PDEATHSIG, prctl

Batch = dict[str, Any]

PREFETCH = 4
"""Batches that each worker prepares ahead."""
SHARED_MEMORY = Path("/dev/shm")


def _begin(parent: int, _worker: int) -> None:
    """Runs first in a worker: die with the trainer."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the trainer died before the kernel was told
        os._exit(1)


def fits_shared_memory(batch_bytes: int, workers: int, ranks_on_node: int, free: int) -> bool:
    """Whether all batches that may be under way at once on this node fit into `free` bytes of /dev/shm."""
    return 1.25 * batch_bytes * workers * (PREFETCH + 1) * ranks_on_node < free


def _by_pipe(collate: Callable[[list[Any]], Batch], samples: list[Any]) -> Batch:
    """Collate; tensors become arrays, which multiprocessing sends through a pipe instead of shared memory."""
    batch = collate(samples)
    if get_worker_info() is None:
        return batch
    return {key: value.numpy() if isinstance(value, torch.Tensor) else value for key, value in batch.items()}


def _as_tensors(pin_memory: bool, batch: Batch) -> Batch:
    def tensor(value: Any) -> Any:
        if not isinstance(value, np.ndarray):
            return value
        made = torch.from_numpy(value)
        return made.pin_memory() if pin_memory else made

    return {key: tensor(value) for key, value in batch.items()}


def _end(iterator: Any, processes: Sequence[multiprocessing.process.BaseProcess]) -> None:
    """Ask the workers to leave; kill what does not."""
    if processes:
        iterator._shutdown_workers()  # also tells torch that their end is no failure
    for process in processes:
        if process.is_alive():
            process.kill()
    for process in processes:
        process.join()


@contextmanager
def batches(
    dataset: Dataset[Any],
    batch_sampler: Any,
    collate: Callable[[list[Any]], Batch],
    *,
    workers: int,
    batch_bytes: int,
    ranks_on_node: int,
    pin_memory: bool,
) -> Iterator[Iterator[Batch]]:
    """Iterate over collated batches, made by `workers` processes (0: by this one), which end with the context.

    `batch_bytes` is the size of one batch's images; with too little free shared memory for all batches in flight,
    they come through pipes, which is slower and needs none.
    """
    pipes = False
    if workers > 0:
        free = shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else 0
        pipes = not fits_shared_memory(batch_bytes, workers, ranks_on_node, free)
    before = set(multiprocessing.active_children())
    loader = DataLoader(
        dataset,
        batch_sampler=batch_sampler,
        collate_fn=partial(_by_pipe, collate) if pipes else collate,
        num_workers=workers,
        prefetch_factor=PREFETCH if workers > 0 else None,
        worker_init_fn=partial(_begin, os.getpid()),
        multiprocessing_context="fork" if workers > 0 else None,
        generator=torch.Generator(),  # the global one stays untouched by how often loaders are made
        pin_memory=pin_memory and not pipes,
    )
    with deaf_children():  # they leave requests to stop to the trainer
        iterator = iter(loader)
    processes = [child for child in multiprocessing.active_children() if child not in before]
    stop = partial(_end, iterator, processes)
    # At exit multiprocessing would send its children SIGTERM, to which they are deaf, and wait for them for ever.
    atexit.register(stop)
    try:
        yield map(partial(_as_tensors, pin_memory), iterator) if pipes else iterator
    finally:
        stop()
        atexit.unregister(stop)
