"""Reads all images' headers and all label files of a split, and checks them with Ultralytics' own check.

Nothing on the data volume is written: Ultralytics replaces a JPEG without an end marker by a new one. Here a copy of it
is checked, and the image is used as it is.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from multiprocessing.pool import ThreadPool
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset
from ultralytics.data.utils import verify_image_label

from distill_trainer.data.config import DatasetConfig, invalid
from distill_trainer.data.labels.listing import Progress, SplitFiles
from distill_trainer.data.labels.rules import LabelRules, check_label_files
from distill_trainer.data.labels.truncated import completed, lacks_end_marker
from distill_trainer.data.loading.workers import BatchLoader
from distill_trainer.process.machine.cpus import available_cpus

log = logging.getLogger(__name__)

LABELS_CHECKED = 256
"""Label files of a split that are checked before the scan, so that a common mistake is found at once."""

_CHUNK = 256
"""Images that a process checks at a time."""
_THREADS = 8
"""They hide the latency of a network file system."""
_NO_FILE = os.path.join(os.devnull, "none")
"""The label file of images without labels; exists nowhere."""
_NO_HEIF = "No module named 'pi_heif'"


class Scan:
    """The result of a scan: a split's flat arrays, and what was left out."""

    def __init__(self, arrays: dict[str, NDArray[Any]], usable: NDArray[np.int64], messages: Sequence[str]) -> None:
        self.arrays = arrays
        self.usable = usable
        """Numbers of the images that can be used, of those that were scanned."""
        self.messages = messages
        """One for each image that was left out."""


def check_sample(files: SplitFiles, config: DatasetConfig) -> None:
    """Check some label files of a split. Raises Permanent(DatasetInvalid)."""
    check_label_files(files.labels[:: max(1, len(files.labels) // LABELS_CHECKED)], _rules(config))


def scan(files: SplitFiles, config: DatasetConfig, split: str, on_progress: Progress) -> Scan:
    """Check all images and labels of a split. Raises Permanent(DatasetInvalid), which names file and line."""
    if split == "train" and not (files.label_stats[:, 0] >= 0).any():
        raise invalid(
            f"data set {config.file}: no training image has a label file; the label file of"
            f" {files.images[0]} must be {files.labels[0]}",
        )
    chunks = list(_chunks(files, config, on_progress))
    usable = np.concatenate([chunk["usable"] for chunk in chunks])
    messages = [message for chunk in chunks for message in chunk["messages"]]
    suspects = [number for chunk in chunks for number in chunk["suspects"]]
    if len(files.labels):
        check_label_files([files.labels[number] for number in suspects], _rules(config))
    if not len(usable):
        raise invalid(
            f"data set {config.file}: none of {len(files.images)} images can be used for {config.task};"
            f" the first one: {messages[0]}",
        )
    boxes = np.concatenate([chunk["boxes"] for chunk in chunks])
    if len(files.labels) and not len(boxes):
        raise invalid(
            f"data set {config.file}: no {'training' if split == 'train' else 'val'} image has labels; the label file "
            f"of {files.images[0]} is {files.labels[0]}",
        )
    if config.single_cls:
        boxes[:, 0] = 0
    arrays = {
        **_names([files.images[number] for number in usable], config.root),
        "files": files.image_stats[usable],
        "shapes": np.concatenate([chunk["shapes"] for chunk in chunks]),
        "boxes": boxes,
        "box_ends": np.cumsum(np.concatenate([chunk["box_counts"] for chunk in chunks])),
        **_outlines(chunks, len(boxes)),
    }
    if config.task == "pose":
        arrays["keypoints"] = np.concatenate([chunk["keypoints"] for chunk in chunks if len(chunk["usable"])])
    return Scan(arrays, usable, messages)


def _names(images: Sequence[str], root: str) -> dict[str, NDArray[Any]]:
    names = [os.fsencode(image[len(os.path.join(root, "")) :]) for image in images]
    ends = np.cumsum([len(name) for name in names], dtype=np.int64)
    return {"names": np.frombuffer(b"".join(names), np.uint8), "name_ends": ends}


def _outlines(chunks: Sequence[dict[str, Any]], boxes: int) -> dict[str, NDArray[Any]]:
    """Outlines of all boxes, or none at all: as in Ultralytics, some are no use where others are missing."""
    counts = np.concatenate([chunk["outline_counts"] for chunk in chunks])
    if len(counts) not in (0, boxes):
        log.warning("only %d of %d labels are polygons: all are used as boxes", len(counts), boxes)
        return {"points": np.zeros((0, 2), np.float32), "outline_ends": np.zeros(0, np.int64)}
    return {"points": np.concatenate([chunk["points"] for chunk in chunks]), "outline_ends": np.cumsum(counts)}


def _rules(config: DatasetConfig) -> LabelRules:
    return LabelRules(config.task, config.nc, config.kpt_shape, config.single_cls)


def _chunks(files: SplitFiles, config: DatasetConfig, on_progress: Progress) -> Iterator[dict[str, Any]]:
    """What is found in each _CHUNK images, in order: by other processes where that pays."""
    numbers = range(len(files.images))
    chunks = [list(numbers[start : start + _CHUNK]) for start in numbers[::_CHUNK]]
    workers = min(available_cpus(), len(chunks) // 2)
    loader = BatchLoader(_Images(files, config), chunks, _flatten, workers=workers)
    with closing(loader):
        for chunk, result in zip(chunks, loader, strict=True):
            on_progress(chunk[-1] + 1)
            yield result


class _Images(Dataset[Any]):
    """What Ultralytics' check says of each image of a split."""

    def __init__(self, files: SplitFiles, config: DatasetConfig) -> None:
        self._files, self._config = files, config

    def __getitems__(self, numbers: list[int]) -> list[Any]:
        """The checks of several images, each with its number."""
        with ThreadPool(_THREADS) as pool:
            return pool.map(self._check, numbers)

    def _check(self, number: int) -> tuple[int, Any, bool]:
        files, config = self._files, self._config
        result = _verify(
            files.images[number],
            files.labels[number] if files.labels else _NO_FILE,
            "",
            config.task == "pose",
            config.nc,
            *(config.kpt_shape or (0, 0)),
            config.single_cls,
        )
        return number, result, config.task in ("segment", "obb")


def _verify(image: str, *others: Any) -> Any:
    """Ultralytics' check of an image and its label file; of a copy of an image that it would write anew."""
    if not lacks_end_marker(image):
        found, *result, message = verify_image_label((image, *others))
        return [found, *result, _true_cause(message, image)]
    with completed(image) as copy:
        found, *result, message = verify_image_label((copy, *others))
    return [found and image, *result, message.replace(copy, image)]


def _true_cause(message: str, image: str) -> str:
    """Ultralytics takes a file that Pillow does not know for HEIF, and says only that it has no reader for that."""
    if image.lower().endswith((".heic", ".heif")):
        return message.replace(_NO_HEIF, f"HEIF needs a trainer image with the package pi-heif ({_NO_HEIF})")
    return message.replace(_NO_HEIF, "the file is damaged, or is no image of a known format")


def _flatten(checks: Sequence[tuple[int, Any, bool]]) -> dict[str, Any]:
    """The flat arrays of some images; `suspects`: those whose label file is to be looked at, line by line."""
    usable, shapes, boxes, outlines, keypoints, suspects, messages = [], [], [], [], [], [], []
    for number, (image, rows, shape, segments, points, *_, message), needs_outlines in checks:
        if image is None:
            suspects.append(number)
            messages.append(message)
            continue
        if needs_outlines and (len(segments) < len(rows) or any(len(outline) < 3 for outline in segments)):
            suspects.append(number)
        usable.append(number)
        shapes.append(shape)
        boxes.append(rows)
        outlines += segments
        keypoints += [] if points is None else [points]
    return {
        "usable": np.array(usable, np.int64),
        "shapes": np.array(shapes, np.int32).reshape(-1, 2),
        "box_counts": np.array([len(rows) for rows in boxes], np.int64),
        "boxes": np.concatenate([np.zeros((0, 5), np.float32), *boxes]),
        "outline_counts": np.array([len(outline) for outline in outlines], np.int64),
        "points": np.concatenate([np.zeros((0, 2), np.float32), *outlines]),
        "keypoints": np.concatenate(keypoints) if keypoints else np.zeros((0, 0, 3), np.float32),
        "suspects": suspects,
        "messages": messages,
    }
