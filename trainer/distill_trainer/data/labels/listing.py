"""Finds the images and label files of a data set, and tells by their sizes and times whether anything has changed."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from ultralytics.data.dataset import DATASET_CACHE_VERSION
from ultralytics.data.utils import FORMATS_HELP_MSG, IMG_FORMATS, get_split_fraction, img2label_paths

from distill_trainer.data.config import DatasetConfig, invalid

log = logging.getLogger(__name__)

Progress = Callable[[int], None]
"""Called repeatedly with the number of files or images that were looked at."""

_ARRAYS = 2
"""Version of a label file's arrays; a file with older ones is made anew."""
_THREADS = 16
"""They hide the latency of a network file system."""
_SHARE = 64
"""Files that a thread looks at in one go. One by one, each of a local disk's files takes 16 µs instead of 4."""
_MISSING = (-1, -1)


@dataclass(frozen=True)
class SplitFiles:
    """The files of one split as they are now."""

    images: Sequence[str]
    """Absolute paths, sorted."""
    labels: Sequence[str]
    """Absolute path of each image's label file, whether or not it exists; empty for images without labels."""
    image_stats: NDArray[np.int64]
    """[images, 2]: size in bytes and time of change in ns; -1 for a file that does not exist."""
    label_stats: NDArray[np.int64]


@dataclass(frozen=True)
class Listing:
    """The files of a data set."""

    splits: dict[str, SplitFiles]
    key: str
    """SHA-256 of all that decides what a scan finds: the configuration, and each file's path, size and time."""


def list_files(config: DatasetConfig, on_progress: Progress) -> Listing:
    """Find all files of a data set. No file is read but list files. Raises Permanent(DatasetInvalid)."""
    digest = sha256(repr((_ARRAYS, DATASET_CACHE_VERSION, config.identity)).encode())
    splits: dict[str, SplitFiles] = {}
    for split, sources in config.sources.items():
        images = _images(sources, config, split)
        if split == "train":
            images = _fraction(images, config.fraction)
        labels = img2label_paths(images) if split != "unlabelled" else []
        found = SplitFiles(images, labels, _stats(images, on_progress), _stats(labels, on_progress))
        digest.update(f"\0{split}\0".encode())
        for paths, stats in ((images, found.image_stats), (labels, found.label_stats)):
            digest.update(os.fsencode("\0".join(path[len(config.root) :] for path in paths)))
            digest.update(stats.tobytes())
        splits[split] = found
    if "unlabelled" in splits:
        _refuse_validation_images(splits["unlabelled"].images, splits["val"].images)
    return Listing(splits, digest.hexdigest())


def _images(sources: Iterable[Path], config: DatasetConfig, split: str) -> list[str]:
    found: list[str] = []
    for source in sources:
        found += _in_folder(str(source)) if source.is_dir() else _in_list(source, config, split)
    images = sorted(name for name in found if name.rpartition(".")[2].lower() in IMG_FORMATS)
    if not images:
        where = ", ".join(map(str, sources))
        raise invalid(f"data set {config.file}: no {split} images in {where}. {FORMATS_HELP_MSG}")
    return images


def _in_folder(folder: str) -> Iterator[str]:
    """All files below a folder, without hidden ones."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    yield from _in_folder(entry.path)
                else:
                    yield entry.path
    except PermissionError as error:
        log.warning("folder %s is left out: %s", folder, error.strerror)


def _in_list(file: Path, config: DatasetConfig, split: str) -> Iterator[str]:
    """Images of a list file: one path per line, relative to the folder of the list."""
    inside = os.path.join(config.root, "")
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise invalid(f"data set {config.file}: {split} is {file}, which cannot be read: {error}") from None
    for line in lines:
        if line.strip():
            path = os.path.normpath(file.parent / line.strip())
            if not path.startswith(inside):
                raise config.outside(split, path)
            yield path


def _fraction(images: list[str], fraction: float) -> list[str]:
    """The first images, as many as Ultralytics takes for this fraction."""
    part = get_split_fraction(fraction, "train")
    return images[: part if isinstance(part, int) else max(1, round(len(images) * part))]


def _stats(paths: Sequence[str], on_progress: Progress) -> NDArray[np.int64]:
    """Sizes and times of files, in their order."""
    stats: list[tuple[int, int]] = []
    step = _THREADS * _SHARE
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(paths), step):
            on_progress(start)
            firsts = range(start, min(start + step, len(paths)), _SHARE)
            for share in pool.map(lambda first: [_stat(path) for path in paths[first : first + _SHARE]], firsts):
                stats += share
    return np.array(stats, np.int64).reshape(-1, 2)


def _stat(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:  # reading it will tell why
        return _MISSING
    return found.st_size, found.st_mtime_ns


def _refuse_validation_images(images: Iterable[str], val: Iterable[str]) -> None:
    judged = sorted(set(images) & set(val))
    if judged:
        raise invalid(
            f"dataset.unlabelled has {len(judged)} of the validation images, such as {judged[0]}, on which the"
            " student is judged; take them out"
        )
