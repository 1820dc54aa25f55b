"""LabelTable: the labels of a split as flat arrays, of which a sample's dictionary is made on access.

A Python object for each label would be copied by every rank, and by every data loader worker that counts a reference.
Flat arrays that are mapped from a file exist once on a node.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]
"""names uint8: the images' paths relative to the data volume, one behind the other; name_ends int64 [images].
files int64 [images, 2]: size in bytes, time of change in ns. shapes int32 [images, 2]: height, width.
boxes float32 [boxes, 5]: class, centre, size; box_ends int64 [images].
points float32 [points, 2] and outline_ends int64 [boxes]: the boxes' outlines; without any, outline_ends is empty.
keypoints float32 [boxes, keypoints, 3]: only for pose. Coordinates are relative to the image."""


class ImagePaths(Sequence[str]):
    """The absolute paths of a split's images, decoded on access."""

    def __init__(self, root: str, arrays: Arrays, order: NDArray[np.int64] | None = None) -> None:
        self._root = os.path.join(os.fsencode(root), b"")
        self._names, self._ends, self._order = arrays["names"], arrays["name_ends"], order

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        """The path of an image, or those of a slice."""
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        first, end = _part(self._ends, _row(self._order, range(len(self))[index]))
        return os.fsdecode(self._root + self._names[first:end].tobytes())


class LabelTable(Sequence[dict[str, Any]]):
    """The label dictionaries of a split in Ultralytics' format, each made on access. Their arrays are read-only."""

    def __init__(self, root: str, arrays: Arrays, order: NDArray[np.int64] | None = None) -> None:
        """`root`: absolute path of the data volume. `order`: row of each item; None for that of the arrays."""
        self.images = ImagePaths(root, arrays, order)
        self._root, self._arrays, self._order = root, arrays, order

    @property
    def classes(self) -> NDArray[np.float32]:
        """The class of every box."""
        return self._arrays["boxes"][:, 0]

    @property
    def shapes(self) -> NDArray[np.int32]:
        """[images, 2]: height and width of each image."""
        shapes = self._arrays["shapes"]
        return shapes if self._order is None else shapes[self._order]

    @property
    def sizes(self) -> NDArray[np.int64]:
        """The images' sizes in bytes as they were listed, by row."""
        return self._arrays["files"][:, 0]

    def listed(self, row: int) -> tuple[int, int]:
        """Size in bytes and time of change in ns of the image in a row, as they were listed."""
        size, changed_ns = self._arrays["files"][row].tolist()
        return size, changed_ns

    def row(self, number: int) -> int:
        """Row of an item in the arrays, whatever order the items are in."""
        return _row(self._order, number)

    def sorted_by(self, order: Sequence[int]) -> LabelTable:
        """The same labels in another order, given by numbers of items of this table."""
        rows = np.asarray(order, np.int64)
        return LabelTable(self._root, self._arrays, rows if self._order is None else self._order[rows])

    def __len__(self) -> int:
        return len(self.images)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        """The labels of an image, or those of a slice."""
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        number = range(len(self))[index]
        row, arrays = _row(self._order, number), self._arrays
        first, end = _part(arrays["box_ends"], row)
        boxes = arrays["boxes"][first:end]
        keypoints = arrays.get("keypoints")
        height, width = arrays["shapes"][row].tolist()
        return {
            "im_file": self.images[number],
            "shape": (height, width),
            "cls": boxes[:, 0:1],
            "bboxes": boxes[:, 1:],
            "segments": self._outlines(first, end),
            "keypoints": None if keypoints is None else keypoints[first:end],
            "normalized": True,
            "bbox_format": "xywh",
        }

    def _outlines(self, first: int, end: int) -> list[NDArray[np.float32]]:
        ends = self._arrays["outline_ends"]
        if not len(ends):
            return []
        parts = (_part(ends, box) for box in range(first, end))
        return [self._arrays["points"][start:stop] for start, stop in parts]


def _row(order: NDArray[np.int64] | None, number: int) -> int:
    return number if order is None else int(order[number])


def _part(ends: NDArray[np.int64], number: int) -> tuple[int, int]:
    """Where a part begins and ends, of parts that lie one behind the other."""
    return (int(ends[number - 1]) if number else 0), int(ends[number])
