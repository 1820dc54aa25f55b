"""TrainData: what the training loop sees of the data set."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

import torch

from distill_api.spec.training import Training
from distill_trainer.data.config import DatasetInfo
from distill_trainer.data.dataset import TrainDataset
from distill_trainer.data.order import Order, Stream
from distill_trainer.data.scanned import nobody
from distill_trainer.data.shards import Shards
from distill_trainer.data.workers import batches
from distill_trainer.process.machine.cpus import available_cpus, worker_count

log = logging.getLogger(__name__)


class TrainData:
    """One rank's share of the training data.

    The global batch is training.batch images in `shards`; training.workers is the most data-loading processes to use,
    which the CPUs that the container may use can lower.
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
        scanning: Callable[[], None] = nobody,
    ) -> None:
        """`scanning` is called again and again while the labels are scanned, as by ScannedDataset."""
        self.dataset = TrainDataset(dataset, training, imgsz=imgsz, stride=stride, seed=training.seed, moved=scanning)
        self.order = Order(
            images=len(self.dataset),
            batch=training.batch,
            seed=training.seed,
            mosaic_epochs=max(0, training.epochs - training.close_mosaic) if training.close_mosaic else None,
        )
        self._shard_batch = shards.images(training.batch)
        self._my_shards = shards.mine
        self._batch_bytes = self._shard_batch * dataset.channels * imgsz * imgsz
        self._ranks_on_node = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        self._pin_memory = device.type == "cuda"
        cpus = available_cpus()
        self.workers = worker_count(training.workers, self._ranks_on_node, cpus)
        if self.workers < training.workers:
            log.info(
                "training.workers is %d, but %d ranks share %d CPUs here; %d data-loading processes per rank are used",
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
        """Steps in an epoch: ceil(images / global batch). The last one is filled up from the epoch's beginning."""
        return self.order.steps_per_epoch

    def batches(self, start_step: int, end_step: int) -> Iterator[list[dict[str, Any]]]:
        """Yield, for each step from `start_step` up to `end_step`, this rank's shard batches in order of shards.mine.

        Steps count from 0 over the whole run. A shard batch is what Ultralytics' collate_fn makes: `img` uint8
        [shard_batch, C, imgsz, imgsz], `cls`, `bboxes`, `batch_idx` and what the task adds. One set of workers
        serves the whole range, across epochs. Close the iterator to end them early.
        """
        stream = Stream(self.order, self._shard_batch, self._my_shards, start_step, end_step)
        with batches(
            self.dataset,
            stream,
            self.dataset.collate_fn,
            workers=min(self.workers, len(stream)),
            batch_bytes=self._batch_bytes,
            ranks_on_node=self._ranks_on_node,
            pin_memory=self._pin_memory,
        ) as made:
            for _ in range(start_step, end_step):
                yield [next(made) for _ in self._my_shards]
