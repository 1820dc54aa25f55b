"""Ultralytics' transforms with the same pixels and random numbers, and less work for each.

They apply to 8-bit images with three channels; for others, Ultralytics' own code runs. What is saved, for 640 px:
docs/performance.md.
"""

from __future__ import annotations

import random
from typing import Any, Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from ultralytics.data.augment import Format, Mosaic, RandomHSV, RandomPerspective

Image = NDArray[np.uint8]
"""[H, W, C]"""
Labels = dict[str, Any]

_BACKGROUND: Final = 114
"""Ultralytics' grey where there is no image."""
_TILES: Final = 4


class FastMosaic(Mosaic):
    """Puts tiles into one canvas that is used again, with a fourth channel for FastPerspective."""

    _canvas: Image | None = None

    def apply_image(self, labels: Labels, params: Labels | None = None) -> Labels:
        """Set `img` to a view of the canvas, which the next mosaic overwrites: a warp must follow, which copies."""
        tiles = params["layout"] if params is not None else []
        if self.n != _TILES or not all(_is_colour(tile["labels_patch"]["img"]) for tile in tiles):
            return dict(super().apply_image(labels, params))
        if self._canvas is None:
            self._canvas = np.empty((2 * self.imgsz, 2 * self.imgsz, 4), np.uint8)
        self._canvas.fill(_BACKGROUND)
        for tile in tiles:
            source = tile["labels_patch"]["img"][tile["y1b"] : tile["y2b"], tile["x1b"] : tile["x2b"]]
            if source.size:
                target = self._canvas[tile["y1a"] : tile["y2a"], tile["x1a"] : tile["x2a"]]
                cv2.cvtColor(source, cv2.COLOR_BGR2BGRA, dst=target)
        labels["img"] = self._canvas[..., :3]
        return labels


class FastPerspective(RandomPerspective):
    """Warps four channels: OpenCV has a vectorised kernel for four, and none for three."""

    def apply_image(self, labels: Labels, params: Labels | None = None) -> Labels:
        """Warp `img` as the superclass does. The result is a new array."""
        image = labels["img"]
        if self.perspective or params is None or not _is_colour(image):
            labels["img"] = np.ascontiguousarray(image)
            return dict(super().apply_image(labels, params))
        four = _four_channels(image)
        warped = cv2.warpAffine(four, params["M"][:2], dsize=params["size"], borderValue=(_BACKGROUND,) * 4)
        labels["img"] = cv2.cvtColor(warped, cv2.COLOR_BGRA2BGR)
        labels["resized_shape"] = labels["img"].shape[:2]
        return labels


class FastHSV(RandomHSV):
    """Looks hue, saturation and value up one by one: OpenCV vectorises tables of one channel only."""

    def apply_image(self, labels: Labels, params: Labels | None = None) -> Labels:
        """Change `img` in place as the superclass does."""
        image = labels["img"]
        gains = self.hgain, self.sgain, self.vgain
        if not any(gains) or not _is_colour(image):
            return dict(super().apply_image(labels, params))
        hue, saturation, value = np.random.uniform(-1, 1, 3) * gains
        levels = np.arange(256.0)
        tables = [
            (levels + hue * 180) % 180,  # 8-bit hues are degrees / 2
            np.clip(levels * (saturation + 1), 0, 255),
            np.clip(levels * (value + 1), 0, 255),
        ]
        tables[1][0] = 0  # grey stays grey
        hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
        planes = [cv2.LUT(plane, table.astype(np.uint8)) for plane, table in zip(cv2.split(hsv), tables, strict=True)]
        cv2.cvtColor(cv2.merge(planes, hsv), cv2.COLOR_HSV2BGR, dst=image)
        return labels


class FastFormat(Format):
    """Separates the channels with OpenCV, which is several times faster than a strided copy."""

    def _format_img(self, img: Image) -> torch.Tensor:
        """`img` [H, W, 3] in BGR, or a flipped view of one, as a tensor [3, H, W], in RGB or, by chance, in BGR."""
        if not _is_colour(img):
            tensor: torch.Tensor = super()._format_img(img)
            return tensor
        planes = np.empty((3, *img.shape[:2]), np.uint8)
        to_rgb = random.uniform(0, 1) > self.bgr
        cv2.split(_unflipped(img), list(planes[::-1] if to_rgb else planes))
        return torch.from_numpy(planes)


_FAST: Final = {Mosaic: FastMosaic, RandomPerspective: FastPerspective, RandomHSV: FastHSV, Format: FastFormat}


def make_fast(transform: Any) -> None:
    """Let a transform of Ultralytics, and all that it is made of, do the same with less work, in place.

    Only the class changes: transforms share others, and keep their state and arguments.
    """
    if type(transform) in _FAST:
        transform.__class__ = _FAST[type(transform)]
    for part in getattr(transform, "transforms", None) or []:
        make_fast(part)
    if (before := getattr(transform, "pre_transform", None)) is not None:
        make_fast(before)


def _is_colour(image: NDArray[Any]) -> bool:
    return image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8


def _four_channels(image: Image) -> Image:
    """The image with a fourth channel of any content: FastMosaic's canvas itself, or a copy."""
    canvas = image.base
    if canvas is not None and canvas.shape == (*image.shape[:2], 4) and _address(canvas) == _address(image):
        return canvas
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_BGR2BGRA), np.uint8)


def _address(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])


def _unflipped(image: Image) -> Image:
    """The same pixels in a contiguous array. NumPy's flips are views, which OpenCV cannot read."""
    down, across = image.strides[0] < 0, image.strides[1] < 0
    base = np.ascontiguousarray(image[:: -1 if down else 1, :: -1 if across else 1])
    if down or across:
        return np.asarray(cv2.flip(base, -1 if down and across else int(across)), np.uint8)
    return base
