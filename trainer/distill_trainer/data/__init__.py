"""Data sets and data loading. Order and augmentation of samples depend only on (seed, epoch, position)."""

from distill_trainer.data.config import DatasetInfo
from distill_trainer.data.loading.shards import Shards
from distill_trainer.data.train import TrainData

__all__ = ["DatasetInfo", "Shards", "TrainData"]
