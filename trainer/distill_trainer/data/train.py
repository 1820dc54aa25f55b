"""TrainData: the training batches of one rank."""

from __future__ import annotations

import logging
import os
from collections.abc import Generator
from contextlib import closing
from typing import Any

import torch
from torch.utils.data import Dataset

from distill_api.spec.training import Training
from distill_trainer.data.config import DatasetInfo
from distill_trainer.data.datasets.dataset import TrainDataset
from distill_trainer.data.datasets.unlabelled import (
    Joined,
    JoinedSampler,
    Unlabelled,
    UnlabelledDataset,
    unlabelled_order,
)
from distill_trainer.data.loading.order import SampleOrder, ShardBatchSampler
from distill_trainer.data.loading.shards import Shards
from distill_trainer.data.loading.workers import BatchLoader
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
        unlabelled_ratio: float = 0.0,
    ) -> None:
        """`unlabelled_ratio`: unlabelled images per labelled one in each batch."""
        shape = {"imgsz": imgsz, "stride": stride, "seed": training.seed}
        self.dataset = TrainDataset(dataset, training, **shape)
        self.order = SampleOrder(
            images=len(self.dataset),
            batch=training.batch,
            seed=training.seed,
            mosaic_epochs=max(0, training.epochs - training.close_mosaic) if training.close_mosaic else None,
        )
        self._shard_batch = shards.images(training.batch)
        self._unlabelled: Unlabelled | None = None
        if unlabelled_ratio > 0:
            more = UnlabelledDataset(dataset, training, **shape)
            per_shard = max(1, round(unlabelled_ratio * self._shard_batch))
            order = unlabelled_order(len(more), per_shard * shards.count, training.seed)
            self._unlabelled = Unlabelled(more, order, per_shard, self.steps_per_epoch * training.epochs)
        self._local_shards = shards.local
        loaded = self._shard_batch + (self._unlabelled.shard_batch if self._unlabelled is not None else 0)
        self._images_bytes = loaded * dataset.channels * imgsz * imgsz
        ranks_on_node = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        self._pin_memory = device.type == "cuda"
        cpus = available_cpus()
        self.workers = worker_count(training.workers, ranks_on_node, cpus)
        if self.workers < training.workers:
            log.info(
                "training.workers is %d, but %d ranks share %d CPUs; using %d data loader workers per rank",
                training.workers,
                ranks_on_node,
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

    def end_unlabelled(self, step: int) -> None:
        """Load no unlabelled images from this step on. Batches that `batches` has loaded ahead still have some."""
        if self._unlabelled is not None:
            self._unlabelled.end_step = step

    def batches(self, start_step: int, end_step: int) -> Generator[list[dict[str, Any]], None, None]:
        """Yield this rank's shard batches, in the order of shards.local, for each step from `start_step` to `end_step`.

        Steps count from 0 over the whole run. A shard batch has the format of Ultralytics' collate_fn: `img` uint8
        [shard_batch, C, imgsz, imgsz], `cls`, `bboxes`, `batch_idx` and the task's own entries. Unlabelled images come
        behind the labelled ones. The same workers are used across epochs. Close the iterator to end them early.
        """
        sampler: Any = ShardBatchSampler(self.order, self._shard_batch, self._local_shards, start_step, end_step)
        dataset: Dataset[Any] = self.dataset
        if self._unlabelled is not None:
            sampler = JoinedSampler(sampler, self._unlabelled)
            dataset = Joined(self.dataset, self._unlabelled.dataset)
        loader = BatchLoader(
            dataset,
            sampler,
            self.dataset.collate_fn,
            workers=min(self.workers, len(sampler)),
            images_bytes=self._images_bytes,
            held=2 * len(self._local_shards),  # those of a step, while the next ones are taken
            pin_memory=self._pin_memory,
        )
        with closing(loader):
            shard_batches = iter(loader)
            for step in range(start_step, end_step):
                batches = [next(shard_batches) for _ in self._local_shards]
                if (step + 1) % self.steps_per_epoch == 0:
                    loader.tell_piped(f"epoch {(step + 1) // self.steps_per_epoch}")
                yield batches
