"""Ultralytics' data set over images that were already found, without a trace on the data volume.

Ultralytics writes a pickled label cache beside the labels and reads whatever lies there. The data volume is mounted
read-only, several nodes start at once, and a pickle on a shared volume is not to be trusted; so labels are scanned
into this node's scratch directory, by one rank while the others wait for its lock.
"""

from __future__ import annotations

import fcntl
import logging
import os
import pickle
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ultralytics.data import YOLODataset
from ultralytics.data.dataset import DATASET_CACHE_VERSION

from distill_api.errors import Permanent
from distill_api.reasons import Reason
from distill_trainer.data.config import DatasetInfo
from distill_trainer.data.labels import LabelRules, check_label_files
from distill_trainer.data.randomness import restored
from distill_trainer.process import offline

log = logging.getLogger(__name__)

_LOCK_SECONDS = 0.1


def nobody() -> None:
    """Hears of no movement."""


def scratch_directory() -> Path:
    """A directory that only this user can write: what is unpickled from it, this user has put there.

    Raises PermissionError when another user made it first.
    """
    directory = offline.scratch_directory() / "labels"
    directory.mkdir(exist_ok=True)
    return directory


@contextmanager
def _locked(file: Path, moved: Callable[[], None]) -> Iterator[None]:
    with open(file.with_suffix(".lock"), "w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                # To wait is to move: the rank that scans has a watchdog of its own, and its end frees the lock.
                moved()
                time.sleep(_LOCK_SECONDS)
        yield


class ScannedDataset(YOLODataset):  # type: ignore[misc]
    """A split of a data set whose labels were checked: no label is out of range and at least one image has labels."""

    def __init__(
        self, info: DatasetInfo, images: tuple[str, ...], *, moved: Callable[[], None] = nobody, **arguments: Any
    ) -> None:
        """`moved` is called again and again while labels are scanned, or while another rank scans them."""
        self.info = info
        self._moved = moved
        self._images = images
        try:
            super().__init__(
                img_path=list(images), data=info.as_ultralytics(), task=info.task, cache=False, **arguments
            )
        except (ValueError, RuntimeError) as error:  # how Ultralytics reports labels that it cannot use
            raise Permanent(Reason.DATASET_INVALID, f"data set {info.config}: {error}") from None
        self._moved = nobody  # data-loading processes get a copy of this object

    def result_to_label(self, result: Any) -> Any:
        """One label file is read."""
        self._moved()
        return super().result_to_label(result)

    def get_img_files(self, img_path: str | list[str]) -> list[str]:  # noqa: ARG002 (Ultralytics' signature)
        """The images that were given, cut down to `fraction`."""
        images = list(self._images)
        if isinstance(self.fraction, int):
            return images[: self.fraction]
        return images[: max(1, round(len(images) * self.fraction))]

    def _load_or_scan_cache(self, _: Path, cache_hash: str) -> tuple[dict[str, Any], bool]:
        """Ultralytics' own scan, kept in scratch under the hash of all files' names, sizes and times."""
        if self.augment and not any(os.path.isfile(file) for file in self.label_files):
            raise Permanent(
                Reason.DATASET_INVALID,
                f"data set {self.info.config}: no training image has a label file; {self.im_files[0]} needs"
                f" {self.label_files[0]}",
            )
        kept = scratch_directory() / f"{cache_hash}-{DATASET_CACHE_VERSION}.pickle"
        with _locked(kept, self._moved):
            if kept.is_file():
                with open(kept, "rb") as file:
                    return pickle.load(file), True
            with tempfile.TemporaryDirectory() as directory:
                cache = self.cache_labels(Path(directory) / f"{self.info.config.stem}.cache")
            self._check(cache)
            written = kept.with_suffix(f".{os.getpid()}")
            with open(written, "wb") as file:
                pickle.dump(cache, file, protocol=pickle.HIGHEST_PROTOCOL)
            written.rename(kept)
        return cache, False

    def _check(self, cache: dict[str, Any]) -> None:
        """Raise for a wrong class or if nothing is left; warn of what Ultralytics leaves out."""
        usable = {label["im_file"] for label in cache["labels"]}
        label_of = dict(zip(self.im_files, self.label_files, strict=True))
        dropped = [image for image in self.im_files if image not in usable]
        info = self.info
        rules = LabelRules(info.task, info.nc, info.kpt_shape, self.single_cls)
        check_label_files([label_of[image] for image in [*dropped, *self._without_outline(cache)]], rules)
        if not usable:
            raise Permanent(
                Reason.DATASET_INVALID,
                f"data set {self.info.config}: none of {len(dropped)} images can be used for {self.info.task}."
                f" The first: {cache['msgs'][0]}",
            )
        if not any(len(label["cls"]) for label in cache["labels"]):
            raise Permanent(
                Reason.DATASET_INVALID,
                f"data set {info.config}: no {'training' if self.augment else 'val'} image has any label; "
                f"{self.im_files[0]} has its labels in {self.label_files[0]}",
            )
        if dropped:
            first = next(message for message in cache["msgs"] if dropped[0] in message)
            log.warning("%s: %d unreadable images are left out; the first: %s", self.info.config, len(dropped), first)

    def _without_outline(self, cache: dict[str, Any]) -> list[str]:
        """Images of which Ultralytics has taken boxes where the task needs masks or rotated boxes."""
        if self.info.task not in ("segment", "obb"):
            return []
        return [
            label["im_file"]
            for label in cache["labels"]
            if len(label["segments"]) < len(label["cls"]) or any(len(outline) < 3 for outline in label["segments"])
        ]

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One sample, without drawing from the trainer's own random generators."""
        with restored():
            return super().__getitem__(index)
