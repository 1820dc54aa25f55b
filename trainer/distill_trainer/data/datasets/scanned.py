"""An Ultralytics data set over a LabelTable, which never writes to the data volume.

Ultralytics reads, writes and deletes <image>.npy beside an image. Here .npy files are left alone.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ultralytics.data import YOLODataset

from distill_trainer.data.config import DatasetInfo
from distill_trainer.data.datasets.pixels import make_fast
from distill_trainer.data.labels.table import LabelTable
from distill_trainer.data.labels.truncated import completed, lacks_end_marker
from distill_trainer.data.loading.randomness import preserve_rng_state

_NO_FILE = Path(os.devnull) / "none"
"""A file that exists nowhere."""


class NoFiles(Sequence[Path]):
    """A file that does not exist, for every image."""

    def __init__(self, images: int) -> None:
        self._images = images

    def __len__(self) -> int:
        return self._images

    def __getitem__(self, _: Any) -> Any:
        return _NO_FILE


class NotLoaded(dict[int, Any]):
    """Of images that Ultralytics keeps by number: there is none but those that were put here."""

    def __missing__(self, _: int) -> None:
        return None


class ScannedDataset(YOLODataset):
    """A split of a data set: checked labels, mapped from the label file, and images, read on access."""

    labels: Any
    """A LabelTable, except while `set_rectangle` sorts it."""

    def __init__(self, info: DatasetInfo, labels: LabelTable, **arguments: Any) -> None:
        """`labels`: of one of the splits of `info`. `arguments`: those of Ultralytics' data set."""
        self.info = info
        self._table = labels
        self._copies = info.cache.of(labels) if info.cache is not None else None
        super().__init__(img_path="", data=info.as_ultralytics(), task=info.task, cache=False, **arguments)
        self.im_files = self.labels.images
        self.npy_files = NoFiles(self.ni)
        self.ims, self.im_hw0, self.im_hw = NotLoaded(), NotLoaded(), NotLoaded()

    def get_img_files(self, img_path: str | list[str]) -> list[str]:  # noqa: ARG002 (Ultralytics' signature)
        """None: the paths come with the labels, and Ultralytics makes objects for each path that it knows."""
        return []

    def get_labels(self) -> LabelTable:
        """The labels, in the order of their images' paths."""
        return self._table

    def update_labels(self, include_class: list[int] | None) -> None:
        """Nothing: single_cls was heeded by the scan."""

    def set_rectangle(self) -> None:
        """Sort the labels as Ultralytics does for rectangular batches, and set the batches' shapes."""
        table: LabelTable = self.labels
        self.labels = [{"shape": shape} for shape in table.shapes.tolist()]
        self.im_files = list(range(len(table)))
        super().set_rectangle()
        self.labels, self.im_files = table.sorted_by(self.im_files), []

    def build_transforms(self, hyp: Any = None) -> Any:
        """Ultralytics' transforms for these arguments, made faster."""
        transforms = super().build_transforms(hyp)
        make_fast(transforms)
        return transforms

    def load_image(self, i: int, *arguments: Any, **keywords: Any) -> Any:
        """Ultralytics' image of a number, its original and its present size."""

        def load(file: str) -> Any:
            files, self.im_files = self.im_files, {i: file}
            try:
                return super(ScannedDataset, self).load_image(i, *arguments, **keywords)
            finally:
                self.im_files = files

        image = self.im_files[i]
        if self._copies is not None:
            copy = self._copies.path(self.labels.row(i), image)
            if copy != image:
                with contextlib.suppress(FileNotFoundError):  # or the file itself is read
                    return load(copy)
        try:
            return load(image)
        except FileNotFoundError:
            if not lacks_end_marker(image):
                raise
        with completed(image) as copy:
            return load(copy)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One sample. Does not change the trainer's random state."""
        with preserve_rng_state():
            return super().__getitem__(index)
