"""The validation split of one rank: the batches that Ultralytics would make, every W-th of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from distill_api.spec.training import Training
from distill_trainer.data.arguments import data_arguments
from distill_trainer.data.config import DatasetInfo
from distill_trainer.data.scanned import ScannedDataset, nobody
from distill_trainer.data.workers import batches
from distill_trainer.process.machine.cpus import available_cpus, worker_count
from distill_trainer.training.parallel.environment import Environment


class ValData:
    """The validation split and this rank's share of its batches."""

    def __init__(
        self,
        dataset: DatasetInfo,
        training: Training,
        *,
        imgsz: int,
        stride: int,
        batch: int,
        environment: Environment,
        scanning: Callable[[], None] = nobody,
    ) -> None:
        """`batch` images are validated at once. `scanning` is called while the labels are scanned."""
        self.info = dataset
        self.training = training
        self.task = dataset.task
        self.imgsz = imgsz
        self.batch = batch
        self.environment = environment
        self.dataset = ScannedDataset(
            dataset,
            dataset.val,
            moved=scanning,
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
        self._ranks_on_node = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        self._on_cuda = environment.device.type == "cuda"
        # On a CPU the model takes all cores anyway; a second process would only wait for them.
        self._workers = 0
        if self._on_cuda:
            self._workers = worker_count(training.workers, self._ranks_on_node, available_cpus())

    @property
    def images(self) -> int:
        """Images in the validation split."""
        return len(self.dataset)

    @property
    def batches_in_all(self) -> int:
        """Batches of all ranks together."""
        return -(-self.images // self.batch)

    @property
    def my_batches(self) -> list[int]:
        """Numbers of the batches that this rank takes."""
        return list(range(self.environment.rank, self.batches_in_all, self.environment.world_size))

    @contextmanager
    def open(self) -> Iterator[Iterator[dict[str, Any]]]:
        """This rank's batches as Ultralytics' collate_fn makes them, in the order of `my_batches`."""
        sampler = [
            list(range(number * self.batch, min((number + 1) * self.batch, self.images))) for number in self.my_batches
        ]
        with batches(
            self.dataset,
            sampler,
            self.dataset.collate_fn,
            workers=min(self._workers, len(sampler)),
            batch_bytes=self.batch * self.info.channels * self.imgsz**2,
            ranks_on_node=self._ranks_on_node,
            pin_memory=self._on_cuda,
        ) as made:
            yield made
