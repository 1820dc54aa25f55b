"""Takes differences from Ultralytics (docs/deviations.md) back, one at a time, by patching the trainer in its process.

`exact-musgd` is no difference but a defect that the trainer once had: a measurement should see it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from itertools import chain, repeat
from typing import Any

import numpy as np

ENV = "BENCH_SWITCHES"
"""Environment variable with the switches of a process, separated by commas."""


def _mosaic_pool_256() -> None:
    """A mosaic's other tiles come from 256 positions of the shuffle, about as many images as Ultralytics remembers."""
    from distill_trainer.data.loading import order

    order.MOSAIC_POOL = 256


def _short_last_batch() -> None:
    """The last batch of an epoch is smaller. For one shard; a rank with several would have an empty one."""
    from distill_trainer.data.loading.order import SampleOrder

    whole = SampleOrder.shard

    def shard(order: SampleOrder, step: int, number: int, shard_batch: int) -> list[Any]:
        return [sample for sample in whole(order, step, number, shard_batch) if sample.position < order.images]

    SampleOrder.shard = shard  # type: ignore[assignment]


def _ultralytics_data() -> None:
    """Batches come from Ultralytics' own loader: its order, mosaic, last batch, and random numbers, of which it takes
    some for each split while it looks at a few files.
    """
    from ultralytics.data import build_dataloader, build_yolo_dataset

    from distill_trainer.data import train
    from distill_trainer.data.datasets.arguments import data_arguments

    build = train.TrainData.__init__

    def init(data: Any, info: Any, training: Any, **others: Any) -> None:
        build(data, info, training, **others)
        arguments = data_arguments(training, info.task, others["imgsz"])
        random.seed(training.seed)
        np.random.seed(training.seed)
        images, meaning = info.file.parent / "images", info.as_ultralytics()
        theirs, _ = (
            build_yolo_dataset(arguments, str(images / split), training.batch, meaning) for split in ("train", "val")
        )
        data.theirs, data.arguments = build_dataloader(theirs, training.batch, 0, device="cpu"), arguments
        data.closed_from = training.epochs - training.close_mosaic if training.close_mosaic else None

    def epoch(data: Any, number: int) -> Iterator[Any]:
        if number == data.closed_from:
            data.theirs.dataset.close_mosaic(hyp=data.arguments)
            data.theirs.reset()
        yield from data.theirs

    def batches(data: Any, start_step: int, end_step: int) -> Iterator[list[Any]]:
        per_epoch = data.steps_per_epoch
        epochs = range(start_step // per_epoch, -(-end_step // per_epoch))
        for batch in chain.from_iterable(map(epoch, repeat(data), epochs)):
            yield [batch]

    train.TrainData.__init__ = init  # type: ignore[method-assign,assignment]
    train.TrainData.batches = batches  # type: ignore[assignment]


def _statistics_of_all_shards() -> None:
    """Every shard moves the running statistics, not shard 0 alone."""
    from distill_trainer.training import step

    step.frozen_running_statistics = lambda _: nullcontext()  # type: ignore[assignment,return-value]


def _contiguous() -> None:
    """The student computes in PyTorch's own layout, as on CPUs in Ultralytics, instead of channels-last."""
    from distill_trainer.training.device.preprocess import Preprocess
    from distill_trainer.training.step_builder import StepBuilder

    build, call = StepBuilder._build_task, Preprocess.__call__

    def build_task(builder: StepBuilder, saved: Mapping[str, Any]) -> Any:
        import torch

        return build(builder, saved).to(memory_format=torch.contiguous_format)

    def preprocess(preprocess: Preprocess, batch: dict[str, Any], step: int) -> dict[str, Any]:
        converted = call(preprocess, batch, step)
        return converted | {"img": converted["img"].contiguous()}

    StepBuilder._build_task = build_task  # type: ignore[assignment]
    Preprocess.__call__ = preprocess  # type: ignore[assignment]


def _initial_seed_plus_one() -> None:
    """Initial weights are those of seed + 1, as in Ultralytics."""
    from distill_trainer.models import setup

    build = setup.build_student
    setup.build_student = lambda source, dataset, arguments, seed: build(source, dataset, arguments, seed + 1)


def exact_musgd() -> None:
    """MuSGD's iteration in fp32 instead of bf16: the defect that decision 0007 tells of. Works on CPUs and GPUs."""
    from ultralytics.optim import muon

    def exact(matrix: Any, eps: float = 1e-7) -> Any:
        a, b, c = 3.4445, -4.7750, 2.0315
        found = matrix.float()
        found = found / (found.norm(dim=(-2, -1), keepdim=True) + eps)
        if tall := matrix.size(-2) > matrix.size(-1):
            found = found.mT
        for _ in range(5):
            gram = found @ found.mT
            found = a * found + (b * gram + c * gram @ gram) @ found
        return found.mT if tall else found

    muon.zeropower_via_newtonschulz5 = exact


SWITCHES: dict[str, Callable[[], None]] = {
    "mosaic-pool-256": _mosaic_pool_256,
    "short-last-batch": _short_last_batch,
    "ultralytics-data": _ultralytics_data,
    "statistics-of-all-shards": _statistics_of_all_shards,
    "contiguous": _contiguous,
    "initial-seed-plus-one": _initial_seed_plus_one,
    "exact-musgd": exact_musgd,
}


def apply(names: Iterable[str]) -> None:
    """Take the named differences back in this process. Raises KeyError for a name that is not in SWITCHES."""
    for name in names:
        SWITCHES[name]()
