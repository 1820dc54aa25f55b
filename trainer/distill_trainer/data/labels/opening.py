"""Opens a data set: from the job's label file if it is fresh, else by a scan, which writes that file.

The file is named by the key of a listing (paths, sizes and times of all files), so it is fresh or not there. One rank
of the gang scans and writes; all others open what it has written.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from distill_api.errors import Retryable
from distill_api.reasons import Reason
from distill_trainer.checkpoint.store.storage import atomic_write, clear_temporaries, discard, storage_errors
from distill_trainer.data.config import DatasetConfig, DatasetInfo
from distill_trainer.data.labels import file
from distill_trainer.data.labels.listing import Listing, Progress, list_files
from distill_trainer.data.labels.scan import Scan, check_sample, scan
from distill_trainer.data.labels.table import LabelTable

log = logging.getLogger(__name__)

_SUFFIX = ".labels"


def no_op(_: int) -> None:
    """The default Progress."""


@dataclass(frozen=True)
class LabelFolder:
    """The folder of a job's label file, on the checkpoints volume."""

    folder: Path

    def refresh(
        self, config: DatasetConfig, on_progress: Progress = no_op, guard: Callable[[], None] = lambda: None
    ) -> str:
        """Scan the data set and write its label file, unless it is fresh. Returns the key to open it with.

        `guard` is called before files are replaced or deleted and can prevent it by raising. Raises Permanent
        (DatasetInvalid; the volume is read-only or full) or Retryable.
        """
        listing = list_files(config, on_progress)
        path = self._path(listing.key)
        if not _is_intact(path):
            log.info("scanning the labels of %d images", sum(len(split.images) for split in listing.splits.values()))
            clear_temporaries(self.folder)
            atomic_write(path, file.encode(*_scan_all(config, listing, on_progress)), guard)
        self._delete_others(path, guard)
        return listing.key

    def open(self, config: DatasetConfig, key: str) -> DatasetInfo:
        """The data set with the labels of a file that `refresh` has written. Raises Retryable if it cannot be read."""
        path = self._path(key)
        try:
            return _dataset(config, *file.read(path))
        except (OSError, file.Damaged) as error:
            raise Retryable(
                Reason.TRAINER_ERROR,
                f"label file {path}, which rank 0 has written or found, cannot be read: {error}; all nodes must see "
                "the same checkpoints volume",
            ) from error

    def _path(self, key: str) -> Path:
        return self.folder / f"{key[:32]}{_SUFFIX}"

    def _delete_others(self, path: Path, guard: Callable[[], None]) -> None:
        with storage_errors(self.folder):
            others = [other for other in self.folder.glob(f"*{_SUFFIX}") if other != path]
            if others:
                guard()  # a newer life of the job may have written one, and map it
            for other in others:
                discard(other)


def scan_dataset(config: DatasetConfig, on_progress: Progress = no_op) -> DatasetInfo:
    """The data set, scanned into this process's memory. Raises Permanent(DatasetInvalid)."""
    return _dataset(config, *_scan_all(config, list_files(config, on_progress), on_progress))


def _is_intact(path: Path) -> bool:
    try:
        file.read(path)
    except FileNotFoundError:
        return False
    except (OSError, file.Damaged) as error:
        log.warning("label file %s is replaced: %s", path, error)
        return False
    return True


def _further(on_progress: Progress, done: int, images: int) -> None:
    on_progress(done + images)


def _scan_all(
    config: DatasetConfig, listing: Listing, on_progress: Progress
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Header and arrays of a label file."""
    for files in listing.splits.values():
        check_sample(files, config)
    scans: dict[str, Scan] = {}
    done = 0
    for split, files in listing.splits.items():
        scans[split] = scan(files, config, split, partial(_further, on_progress, done))
        done += len(files.images)
    for found in scans.values():
        if found.messages:
            log.warning(
                "%s: skipping %d unreadable images; the first one: %s",
                config.file,
                len(found.messages),
                found.messages[0],
            )
    digest = _digest(config, listing, scans)
    arrays = {f"{split}/{name}": array for split, found in scans.items() for name, array in found.arrays.items()}
    return {"digest": digest}, arrays


def _digest(config: DatasetConfig, listing: Listing, scans: Mapping[str, Scan]) -> str:
    """Names the data: equal for a copy elsewhere, different after a change of a label or of an image's size."""
    digest = sha256(repr(config.identity).encode())
    for split, found in scans.items():
        files = listing.splits[split]
        start = config.file.parent if split != "unlabelled" else config.root
        names = [os.path.relpath(files.images[number], start) for number in found.usable]
        digest.update(json.dumps([split, names]).encode())
        digest.update(files.image_stats[found.usable, 0].tobytes())
        for name in ("shapes", "boxes", "box_ends", "points", "outline_ends", "keypoints"):
            if name in found.arrays:
                digest.update(found.arrays[name].tobytes())
    return digest.hexdigest()


def _dataset(config: DatasetConfig, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> DatasetInfo:
    def table(split: str) -> LabelTable:
        prefix = f"{split}/"
        mine = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        return LabelTable(config.root, mine)

    return DatasetInfo(
        **vars(config),
        train=table("train"),
        val=table("val"),
        unlabelled=table("unlabelled") if "unlabelled" in config.sources else None,
        digest=header["digest"],
    )
