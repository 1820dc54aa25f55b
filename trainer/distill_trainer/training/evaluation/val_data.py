"""The validation data of one rank: every W-th of Ultralytics' batches, for W ranks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from distill_api.spec.training import Training
from distill_trainer.data.config import DatasetInfo
from distill_trainer.data.datasets.arguments import data_arguments
from distill_trainer.data.datasets.scanned import ScannedDataset
from distill_trainer.data.loading.workers import BatchLoader
from distill_trainer.process.machine.cpus import available_cpus, worker_count
from distill_trainer.training.parallel.environment import Environment


class ValData:
    """The validation split, and this rank's part of its batches. Close it after the last validation."""

    def __init__(
        self,
        dataset: DatasetInfo,
        training: Training,
        *,
        imgsz: int,
        stride: int,
        batch: int,
        environment: Environment,
    ) -> None:
        """`batch`: images per batch."""
        self.info = dataset
        self.training = training
        self.task = dataset.task
        self.imgsz = imgsz
        self.batch = batch
        self.environment = environment
        self.dataset = ScannedDataset(
            dataset,
            dataset.val,
            imgsz=imgsz,
            augment=False,
            hyp=data_arguments(training, dataset.task, imgsz),
            rect=True,
            batch_size=batch,
            stride=stride,
            pad=0.5,
            single_cls=training.single_cls,
            prefix="val: ",
        )
        self._loader: BatchLoader | None = None
        self._on_cuda = environment.device.type == "cuda"
        # On CPUs the model uses all cores, so that workers would only compete for them.
        self.workers = 0
        """Data loader workers. They are started by the first validation and used by all."""
        if self._on_cuda:
            ranks_on_node = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
            self.workers = worker_count(training.workers, ranks_on_node, available_cpus())

    @property
    def images(self) -> int:
        """Images in the validation split."""
        return len(self.dataset)

    @property
    def total_batches(self) -> int:
        """Number of batches of all ranks."""
        return -(-self.images // self.batch)

    @property
    def rank_batches(self) -> list[int]:
        """Indices of this rank's batches."""
        return list(range(self.environment.rank, self.total_batches, self.environment.world_size))

    def batches(self) -> Iterator[dict[str, Any]]:
        """This rank's batches, in the order of `rank_batches` and the format of Ultralytics' collate_fn."""
        if self._loader is None:
            self._loader = self._open()
        self._loader.tell_piped("the validation before")
        return iter(self._loader)

    def close(self) -> None:
        """End the workers."""
        if self._loader is not None:
            self._loader.close()
            self._loader = None

    def _open(self) -> BatchLoader:
        sampler = [
            list(range(number * self.batch, min((number + 1) * self.batch, self.images)))
            for number in self.rank_batches
        ]
        return BatchLoader(
            self.dataset,
            sampler,
            self.dataset.collate_fn,
            workers=min(self.workers, len(sampler)),
            images_bytes=self.batch * self.info.channels * int(self.dataset.batch_shapes.prod(axis=1).max()),
            held=2,
            pin_memory=self._on_cuda,
        )
