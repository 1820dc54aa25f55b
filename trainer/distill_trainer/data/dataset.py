"""Training samples that depend on their token alone, made by Ultralytics' own augmentation."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill_api.spec.training import Training
from distill_trainer.data.arguments import data_arguments
from distill_trainer.data.config import DatasetInfo
from distill_trainer.data.order import Token, sample_seed
from distill_trainer.data.randomness import restored, seed_all
from distill_trainer.data.scanned import ScannedDataset, nobody

CACHE_BYTES = 128 * 2**20
"""Decoded images that each worker keeps; a pool of 16 images of 640 px takes 20 MiB."""

Loaded = tuple[NDArray[np.uint8], tuple[int, int], tuple[int, int]]


class ImageCache:
    """The decoded images that were used last, up to a number of bytes."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._bytes = 0
        self._images: OrderedDict[int, Loaded] = OrderedDict()

    def get(self, index: int) -> Loaded | None:
        """The image if it is here; it then counts as just used."""
        loaded = self._images.get(index)
        if loaded is not None:
            self._images.move_to_end(index)
        return loaded

    def put(self, index: int, loaded: Loaded) -> None:
        """Keep an image, and let go of those not used for longest. It is made read-only: many samples share it."""
        loaded[0].flags.writeable = False
        self._images[index] = loaded
        self._bytes += loaded[0].nbytes
        while self._bytes > self._capacity:
            _, (image, _, _) = self._images.popitem(last=False)
            self._bytes -= image.nbytes


class TrainDataset(ScannedDataset):
    """Indexed by Token instead of by number."""

    def __init__(
        self,
        info: DatasetInfo,
        training: Training,
        *,
        imgsz: int,
        stride: int,
        seed: int,
        moved: Callable[[], None] = nobody,
    ) -> None:
        self._seed = seed
        self._decoded = ImageCache(CACHE_BYTES)
        arguments = data_arguments(training, info.task, imgsz)
        super().__init__(
            info,
            info.train,
            moved=moved,
            imgsz=imgsz,
            augment=True,
            hyp=arguments,
            rect=False,
            stride=stride,
            single_cls=training.single_cls,
            fraction=training.fraction,
            prefix="train: ",
        )
        plain = copy(arguments)
        plain.mosaic = plain.mixup = plain.cutmix = plain.copy_paste = 0.0
        self._plain_transforms = self.build_transforms(plain)

    def load_image(self, i: int, rect_mode: bool = True, resize_short: bool = False) -> Loaded:
        """Decode and resize image `i`, or take it from this process's cache."""
        loaded = self._decoded.get(i)
        if loaded is None:
            pool, self.buffer = self.buffer, []  # Ultralytics notes what it loaded in its own buffer of images
            loaded = super().load_image(i, rect_mode, resize_short)
            self.buffer = pool
            self.ims[i] = self.im_hw0[i] = self.im_hw[i] = None
            self._decoded.put(i, loaded)
        return loaded

    def __getitem__(self, token: Token) -> dict[str, Any]:
        """The sample that the token stands for, the same in every process."""
        with restored():
            seed_all(sample_seed(self._seed, token.epoch, token.position))
            self.buffer = list(token.pool)  # where Ultralytics' mosaic takes its partners from
            transforms = self.transforms if token.mosaic else self._plain_transforms
            return transforms(self.get_image_and_label(token.index))
