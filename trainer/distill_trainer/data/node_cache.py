"""Copies of a data set's images on the node, so that its processes read each image from the data volume only once.

A process that reads an image for the first time makes its copy; every process of the node then reads that one. Which
images may have a copy follows from their listed sizes alone: as many as fit into the cache, in their order, those for
training first. So no process needs to count or to lock. A copy is named by path, size and time of the image, appears
when it is complete, and is used only if it has that size. Two processes that make it at once write the same bytes.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distill_trainer.data.labels.table import LabelTable

_BLOCK = 4096
"""Files take whole blocks."""
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES})


class Copies:
    """The copies of one split's images."""

    def __init__(self, folder: Path, split: int, table: LabelTable, fits: int) -> None:
        """`split`: its number in the data set. `fits`: how many images, from the first on, may have a copy."""
        self._folder, self._table, self.fits = folder, table, fits
        self._present = _shared_flags(folder / f"present-{split}-{fits}", fits)
        self._writable = True

    @property
    def made(self) -> int:
        """Images that have a copy, whichever process of the node made it."""
        return int(np.count_nonzero(self._present))

    def path(self, row: int, image: str) -> str:
        """The file to read an image from: its copy, which is made if it does not exist yet, or `image` itself."""
        if row >= self.fits:
            return image
        size, changed_ns = self._table.listed(row)
        copy = self._copy(image, size, changed_ns)
        with contextlib.suppress(OSError):
            if os.stat(copy).st_size == size:
                self._present[row] = 1
                return copy
        if self._writable and self._make(copy, image, (size, changed_ns)):
            self._present[row] = 1
            return copy
        return image

    def _copy(self, image: str, size: int, changed_ns: int) -> str:
        name = sha256(os.fsencode(f"{image}\0{size}\0{changed_ns}")).hexdigest()[:32]
        return os.path.join(self._folder, name[:2], name + os.path.splitext(image)[1])

    def _make(self, copy: str, image: str, listed: tuple[int, int]) -> bool:
        try:
            content, found = read(image)
        except OSError:  # whoever reads the image will tell why
            return False
        if found != listed or len(content) != listed[0]:
            return False
        temporary = f"{copy}.{os.getpid()}.tmp"
        try:
            os.makedirs(os.path.dirname(copy), exist_ok=True)
            Path(temporary).write_bytes(content)
            os.replace(temporary, copy)
        except OSError as error:
            self._writable = error.errno not in _FULL
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            return False
        return True


class NodeCache:
    """The copies of a data set's images on this node."""

    def __init__(self, folder: Path, capacity: int, tables: Sequence[LabelTable]) -> None:
        """`capacity`: bytes that all copies may take. `tables`: of all splits, the ones to copy first at the start.

        Raises OSError if the folder cannot be used.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._copies: list[tuple[LabelTable, Copies]] = []
        for split, table in enumerate(tables):
            ends = np.cumsum(-(-table.sizes // _BLOCK) * _BLOCK)
            fits = int(np.searchsorted(ends, capacity, "right"))
            capacity -= int(ends[fits - 1]) if fits else 0
            self._copies.append((table, Copies(folder, split, table, fits)))

    def of(self, table: LabelTable) -> Copies:
        """The copies of one of the splits."""
        return next(copies for of, copies in self._copies if of is table)

    def progress(self) -> tuple[int, int]:
        """Images that have a copy, and those that can have one."""
        return sum(copies.made for _, copies in self._copies), sum(copies.fits for _, copies in self._copies)


def read(image: str) -> tuple[bytes, tuple[int, int]]:
    """Contents of a file, with its size and time of change in ns. Raises OSError."""
    with open(image, "rb") as file:
        found = os.fstat(file.fileno())
        return file.read(), (found.st_size, found.st_mtime_ns)


def _shared_flags(path: Path, count: int) -> NDArray[np.uint8]:
    """A byte for each image, 0 at first, that all processes of the node share."""
    with open(path, "ab") as file:
        file.truncate(max(count, 1))
    return np.memmap(path, np.uint8, "r+", shape=(max(count, 1),))
