"""TrainData: the training batches of one rank."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

import torch

from distill_api.spec.training import Training
from distill_trainer.data.config import DatasetInfo
from distill_trainer.data.dataset import TrainDataset
from distill_trainer.data.order import SampleOrder, ShardBatchSampler
from distill_trainer.data.scanned import no_op
from distill_trainer.data.shards import Shards
from distill_trainer.data.workers import load_batches
from distill_trainer.process.machine.cpus import available_cpus, worker_count

log = logging.getLogger(__name__)


class TrainData:
    """One rank's part of the training data.

    The global batch has training.batch images, divided into `shards`. training.workers is the maximum number of data
    loader workers; fewer are used if the container has fewer CPUs.
    """

    def __init__(
        self,
        dataset: DatasetInfo,
        training: Training,
        *,
        imgsz: int,
        stride: int,
        shards: Shards,
        device: torch.device,
        on_progress: Callable[[], None] = no_op,
    ) -> None:
        """`on_progress` is called repeatedly while labels are scanned. Raises Permanent(DatasetInvalid)."""
        self.dataset = TrainDataset(
            dataset, training, imgsz=imgsz, stride=stride, seed=training.seed, on_progress=on_progress
        )
        self.order = SampleOrder(
            images=len(self.dataset),
            batch=training.batch,
            seed=training.seed,
            mosaic_epochs=max(0, training.epochs - training.close_mosaic) if training.close_mosaic else None,
        )
        self._shard_batch = shards.images(training.batch)
        self._local_shards = shards.local
        self._batch_bytes = self._shard_batch * dataset.channels * imgsz * imgsz
        self._ranks_on_node = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        self._pin_memory = device.type == "cuda"
        cpus = available_cpus()
        self.workers = worker_count(training.workers, self._ranks_on_node, cpus)
        if self.workers < training.workers:
            log.info(
                "training.workers is %d, but %d ranks share %d CPUs; using %d data loader workers per rank",
                training.workers,
                self._ranks_on_node,
                cpus,
                self.workers,
            )

    @property
    def images(self) -> int:
        """Images in the training split."""
        return self.order.images

    @property
    def steps_per_epoch(self) -> int:
        """Steps in an epoch: ceil(images / global batch)."""
        return self.order.steps_per_epoch

    def batches(self, start_step: int, end_step: int) -> Iterator[list[dict[str, Any]]]:
        """Yield this rank's shard batches, in the order of shards.local, for each step from `start_step` to `end_step`.

        Steps count from 0 over the whole run. A shard batch has the format of Ultralytics' collate_fn: `img` uint8
        [shard_batch, C, imgsz, imgsz], `cls`, `bboxes`, `batch_idx` and the task's own entries. The same workers are
        used across epochs. Close the iterator to end them early.
        """
        sampler = ShardBatchSampler(self.order, self._shard_batch, self._local_shards, start_step, end_step)
        with load_batches(
            self.dataset,
            sampler,
            self.dataset.collate_fn,
            workers=min(self.workers, len(sampler)),
            batch_bytes=self._batch_bytes,
            ranks_on_node=self._ranks_on_node,
            pin_memory=self._pin_memory,
        ) as shard_batches:
            for _ in range(start_step, end_step):
                yield [next(shard_batches) for _ in self._local_shards]
