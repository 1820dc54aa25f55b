"""Images without labels: their data set, their order, and how they join a shard batch behind the labelled ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from torch.utils.data import Dataset

from distill_trainer.data.config import DatasetInfo
from distill_trainer.data.datasets.dataset import TrainDataset
from distill_trainer.data.labels.table import LabelTable
from distill_trainer.data.loading.order import SampleOrder, SampleSpec, ShardBatchSampler

_SEED_OFFSET: Final = 2**40
"""Gives unlabelled images a shuffle and an augmentation of their own."""


class UnlabelledDataset(TrainDataset):
    """A TrainDataset of the images without labels, which are all background, whatever label files lie beside them."""

    @staticmethod
    def labels_of(info: DatasetInfo) -> LabelTable:
        """Those of the images without labels."""
        assert info.unlabelled is not None
        return info.unlabelled


@dataclass
class Unlabelled:
    """The unlabelled images of a run."""

    dataset: UnlabelledDataset
    order: SampleOrder
    shard_batch: int
    """Images in each shard batch."""
    end_step: int
    """First step without them; may become an earlier one while batches are loaded."""


def unlabelled_order(images: int, batch: int, seed: int) -> SampleOrder:
    """The order of unlabelled images, of which each global batch has `batch`. Its epochs are its own."""
    return SampleOrder(images, batch, seed + _SEED_OFFSET)


class Joined(Dataset[dict[str, Any]]):
    """Two data sets in one: specs of the second have the numbers behind the first one's."""

    def __init__(self, first: TrainDataset, second: TrainDataset) -> None:
        self._first, self._second = first, second

    def __getitem__(self, spec: SampleSpec) -> dict[str, Any]:
        """The sample of a spec."""
        images = len(self._first)
        return self._first[spec] if spec.index < images else self._second[_shifted(spec, -images)]


@dataclass(frozen=True)
class JoinedSampler:
    """The shard batches of `labelled`, with unlabelled images behind them until their end."""

    labelled: ShardBatchSampler
    unlabelled: Unlabelled

    def __len__(self) -> int:
        return len(self.labelled)

    def __iter__(self) -> Iterator[list[SampleSpec]]:
        batches = iter(self.labelled)
        for step in range(self.labelled.start_step, self.labelled.end_step):
            for shard in self.labelled.local_shards:
                batch = next(batches)
                yield [*batch, *self._more(step, shard, mosaic=batch[0].mosaic)]

    def _more(self, step: int, shard: int, *, mosaic: bool) -> list[SampleSpec]:
        more = self.unlabelled
        if step >= more.end_step:
            return []
        specs = more.order.shard(step, shard, more.shard_batch)
        return [_shifted(spec._replace(mosaic=mosaic), self.labelled.order.images) for spec in specs]


def _shifted(spec: SampleSpec, by: int) -> SampleSpec:
    return spec._replace(index=spec.index + by, pool=tuple(image + by for image in spec.pool))
