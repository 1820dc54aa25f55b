"""An Ultralytics data set that never writes to the data volume.

Ultralytics writes a pickled label cache beside the labels and loads any cache that it finds there. But the data volume
is read-only, several nodes start at once, and a pickle on a shared volume cannot be trusted. So the cache is kept in
this node's scratch directory: one rank scans the labels while the others wait for its lock.

Nor are images written: Ultralytics replaces a JPEG without an end marker by a new one, and reads, writes and deletes
<image>.npy beside an image. Here such a JPEG is used as it is, and .npy files are left alone.
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
from ultralytics.data.utils import verify_image_label

from distill_api.errors import Permanent
from distill_api.reasons import Reason
from distill_trainer.data.config import DatasetInfo
from distill_trainer.data.labels import LabelRules, check_label_files
from distill_trainer.data.randomness import preserve_rng_state
from distill_trainer.process import offline

log = logging.getLogger(__name__)

_LOCK_SECONDS = 0.1
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_NO_FILE = Path(os.devnull) / "none"
"""A file that exists nowhere."""


def no_op() -> None:
    """The default `on_progress`."""


def scratch_directory() -> Path:
    """A directory that only this user can write, so that its pickles can be trusted.

    Raises PermissionError if another user created it.
    """
    directory = offline.scratch_directory() / "labels"
    directory.mkdir(exist_ok=True)
    return directory


@contextmanager
def _locked(file: Path, on_progress: Callable[[], None]) -> Iterator[None]:
    with open(file.with_suffix(".lock"), "w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                # Waiting counts as progress: the scanning rank has its own watchdog, and its end releases the lock.
                on_progress()
                time.sleep(_LOCK_SECONDS)
        yield


def _verify(arguments: tuple[Any, ...]) -> Any:
    """Ultralytics' check of an image, the first argument, and its label file; of a copy of an image that it would write
    anew.
    """
    image, *others = arguments
    if not _lacks_end_marker(image):
        return verify_image_label(arguments)
    with _completed(image) as copy:
        found, *result, message = verify_image_label((copy, *others))
    return [found and image, *result, message.replace(copy, image)]


@contextmanager
def _completed(image: str) -> Iterator[str]:
    """A copy of a JPEG, with an end marker: OpenCV decodes no other."""
    with tempfile.NamedTemporaryFile(suffix=Path(image).suffix) as copy:
        copy.write(Path(image).read_bytes() + _JPEG_END)
        copy.flush()
        yield copy.name


def _lacks_end_marker(image: str) -> bool:
    try:
        with open(image, "rb") as file:
            if file.read(len(_JPEG_START)) != _JPEG_START:
                return False
            file.seek(-len(_JPEG_END), os.SEEK_END)
            return file.read() != _JPEG_END
    except OSError:  # for Ultralytics' check to tell
        return False


class ScannedDataset(YOLODataset):  # type: ignore[misc]
    """A split of a data set with checked labels: none is out of range, and at least one image has labels."""

    labelled = True
    """Whether there must be labels."""

    def __init__(
        self, info: DatasetInfo, images: tuple[str, ...], *, on_progress: Callable[[], None] = no_op, **arguments: Any
    ) -> None:
        """`on_progress` is called repeatedly while this or another rank scans the labels.

        Raises Permanent(DatasetInvalid).
        """
        self.info = info
        self._on_progress = on_progress
        self._images = images
        try:
            super().__init__(
                img_path=list(images), data=info.as_ultralytics(), task=info.task, cache=False, **arguments
            )
        except (ValueError, RuntimeError) as error:  # Ultralytics' errors for labels that it cannot use
            raise Permanent(Reason.DATASET_INVALID, f"data set {info.config}: {error}") from None
        self._on_progress = no_op  # data loader workers get a copy of this object
        self.npy_files = [_NO_FILE] * len(self.im_files)

    def verify_args(self) -> Any:
        """Ultralytics' arguments for the check of each image, with a check that writes nothing."""
        _, arguments = super().verify_args()
        return _verify, arguments

    def result_to_label(self, result: Any) -> Any:
        """Ultralytics calls this for every label file it has read."""
        self._on_progress()
        return super().result_to_label(result)

    def get_img_files(self, img_path: str | list[str]) -> list[str]:  # noqa: ARG002 (Ultralytics' signature)
        """The given images, reduced to `fraction`."""
        images = list(self._images)
        if isinstance(self.fraction, int):
            return images[: self.fraction]
        return images[: max(1, round(len(images) * self.fraction))]

    def _load_or_scan_cache(self, _: Path, cache_hash: str) -> tuple[dict[str, Any], bool]:
        """Ultralytics' scan, cached in the scratch directory by the hash of all files' names, sizes and times."""
        if self.labelled and self.augment and not any(os.path.isfile(file) for file in self.label_files):
            raise Permanent(
                Reason.DATASET_INVALID,
                f"data set {self.info.config}: no training image has a label file; the label file of"
                f" {self.im_files[0]} must be {self.label_files[0]}",
            )
        cache_file = scratch_directory() / f"{cache_hash}-{DATASET_CACHE_VERSION}.pickle"
        with _locked(cache_file, self._on_progress):
            if cache_file.is_file():
                with open(cache_file, "rb") as file:
                    return pickle.load(file), True
            with tempfile.TemporaryDirectory() as directory:
                cache = self.cache_labels(Path(directory) / f"{self.info.config.stem}.cache")
            self._check(cache)
            temporary = cache_file.with_suffix(f".{os.getpid()}")
            with open(temporary, "wb") as file:
                pickle.dump(cache, file, protocol=pickle.HIGHEST_PROTOCOL)
            temporary.rename(cache_file)
        return cache, False

    def _check(self, cache: dict[str, Any]) -> None:
        """Raise Permanent for an invalid label or if no image is usable; warn about images Ultralytics leaves out."""
        usable = {label["im_file"] for label in cache["labels"]}
        label_of = dict(zip(self.im_files, self.label_files, strict=True))
        dropped = [image for image in self.im_files if image not in usable]
        info = self.info
        rules = LabelRules(info.task, info.nc, info.kpt_shape, self.single_cls)
        check_label_files([label_of[image] for image in [*dropped, *self._without_outline(cache)]], rules)
        if not usable:
            raise Permanent(
                Reason.DATASET_INVALID,
                f"data set {self.info.config}: none of {len(dropped)} images can be used for {self.info.task};"
                f" the first one: {cache['msgs'][0]}",
            )
        if self.labelled and not any(len(label["cls"]) for label in cache["labels"]):
            raise Permanent(
                Reason.DATASET_INVALID,
                f"data set {info.config}: no {'training' if self.augment else 'val'} image has labels; the label file "
                f"of {self.im_files[0]} is {self.label_files[0]}",
            )
        if dropped:
            first = next(message for message in cache["msgs"] if dropped[0] in message)
            log.warning("%s: skipping %d unreadable images; the first one: %s", self.info.config, len(dropped), first)

    def _without_outline(self, cache: dict[str, Any]) -> list[str]:
        """Images whose labels are plain boxes although the task needs masks or rotated boxes."""
        if self.info.task not in ("segment", "obb"):
            return []
        return [
            label["im_file"]
            for label in cache["labels"]
            if len(label["segments"]) < len(label["cls"]) or any(len(outline) < 3 for outline in label["segments"])
        ]

    def load_image(self, i: int, *arguments: Any, **keywords: Any) -> Any:
        """Ultralytics' image of a number, its original and its present size."""
        try:
            return super().load_image(i, *arguments, **keywords)
        except FileNotFoundError:
            image = self.im_files[i]
            if not _lacks_end_marker(image):
                raise
        with _completed(image) as copy:
            self.im_files[i] = copy
            try:
                return super().load_image(i, *arguments, **keywords)
            finally:
                self.im_files[i] = image

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One sample. Does not change the trainer's random state."""
        with preserve_rng_state():
            return super().__getitem__(index)
