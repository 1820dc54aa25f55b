"""The training data set: makes each sample from its SampleSpec, with Ultralytics' augmentation."""

from __future__ import annotations

from collections import OrderedDict
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill_api.spec.training import Training
from distill_trainer.data.config import DatasetInfo
from distill_trainer.data.datasets.arguments import data_arguments
from distill_trainer.data.datasets.scanned import ScannedDataset
from distill_trainer.data.labels.table import LabelTable
from distill_trainer.data.loading.order import SampleSpec, sample_seed
from distill_trainer.data.loading.randomness import preserve_rng_state, seed_all

CACHE_BYTES = 128 * 2**20
"""Size of each worker's cache of decoded images; 16 images of 640 px take 20 MiB."""

LoadedImage = tuple[NDArray[np.uint8], tuple[int, int], tuple[int, int]]
"""Image [H, W, C], its original (height, width), and its (height, width) after resizing."""


class ImageCache:
    """A least-recently-used cache of decoded images, limited in bytes."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._bytes = 0
        self._images: OrderedDict[int, LoadedImage] = OrderedDict()

    def get(self, index: int) -> LoadedImage | None:
        """The cached image, or None."""
        loaded = self._images.get(index)
        if loaded is not None:
            self._images.move_to_end(index)
        return loaded

    def put(self, index: int, loaded: LoadedImage) -> None:
        """Cache an image and evict the least recently used ones. It becomes read-only, because samples share it."""
        loaded[0].flags.writeable = False
        self._images[index] = loaded
        self._bytes += loaded[0].nbytes
        while self._bytes > self._capacity:
            _, (image, _, _) = self._images.popitem(last=False)
            self._bytes -= image.nbytes


class TrainDataset(ScannedDataset):
    """An Ultralytics data set that is indexed by SampleSpec instead of by number."""

    buffer: list[int]
    """Images that can be the other tiles of a mosaic."""

    def __init__(
        self,
        info: DatasetInfo,
        training: Training,
        *,
        imgsz: int,
        stride: int,
        seed: int,
    ) -> None:
        self._seed = seed
        self._decoded = ImageCache(CACHE_BYTES)
        arguments = data_arguments(training, info.task, imgsz)
        super().__init__(
            info,
            self.labels_of(info),
            imgsz=imgsz,
            augment=True,
            hyp=arguments,
            rect=False,
            stride=stride,
            single_cls=training.single_cls,
            prefix="train: ",
        )
        plain = copy(arguments)
        plain.mosaic = plain.mixup = plain.cutmix = plain.copy_paste = 0.0
        self._plain_transforms = self.build_transforms(plain)

    @staticmethod
    def labels_of(info: DatasetInfo) -> LabelTable:
        """Those of the split that this data set has."""
        return info.train

    def load_image(self, i: int, rect_mode: bool = True, resize_short: bool = False) -> LoadedImage:
        """Decode and resize image `i`, or get it from this process's cache."""
        loaded = self._decoded.get(i)
        if loaded is None:
            pool, self.buffer = self.buffer, []  # the superclass appends to its buffer
            loaded = super().load_image(i, rect_mode, resize_short)
            self.buffer = pool
            for kept in (self.ims, self.im_hw0, self.im_hw):
                kept.pop(i)
            self._decoded.put(i, loaded)
        return loaded

    def __getitem__(self, spec: SampleSpec) -> dict[str, Any]:  # type: ignore[override]
        """The sample of a spec; the same in every process."""
        with preserve_rng_state():
            seed_all(sample_seed(self._seed, spec.epoch, spec.position))
            self.buffer = list(spec.pool)  # Ultralytics' mosaic takes its other tiles from the buffer
            transforms = self.transforms if spec.mosaic else self._plain_transforms
            return transforms(self.get_image_and_label(spec.index))
