"""scikit-learn's handwritten digits as smooth ink with their geometry."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
KEYPOINTS = ("top", "right", "bottom", "left", "centre")
FLIP_IDX = (0, 3, 2, 1, 4)
"""A horizontal flip swaps the leftmost and the rightmost point of the ink."""

SIDE = 80
"""Pixels of a glyph's canvas: an 8x8 digit padded by one cell on each side, 8 pixels per cell."""


@dataclass(frozen=True)
class Glyph:
    """One digit. Points are [n, 2] as (x, y) in pixels of the canvas, upright."""

    label: int
    ink: NDArray[np.float32]
    """Opacity 0 to 1, [SIDE, SIDE]."""
    outline: NDArray[np.float32]
    """Polygon around the ink."""
    keypoints: NDArray[np.float32]
    """Extreme points of the ink and its centre of mass, in the order of KEYPOINTS."""

    @property
    def corners(self) -> NDArray[np.float32]:
        """Upright box of the ink: top left, top right, bottom right, bottom left."""
        (left, top), (right, bottom) = self.outline.min(0), self.outline.max(0)
        return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)


def draw(cells: NDArray[np.float64], label: int) -> Glyph | None:
    """Make a glyph from 8x8 grey values from 0 to 16; None if the ink is not connected."""
    grey = np.pad(cells / 16.0, 1).astype(np.float32)
    smooth = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    return trace(np.clip((cv2.GaussianBlur(smooth, (0, 0), 2.0) - 0.25) / 0.25, 0.0, 1.0), label)


def trace(ink: NDArray[np.float32], label: int) -> Glyph | None:
    """Make a glyph from its ink, [SIDE, SIDE]; None if the ink is not connected."""
    solid = (ink > 0.5).astype(np.uint8)
    contours, _ = cv2.findContours(solid, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if len(contours) != 1:
        return None
    outline = cv2.approxPolyDP(contours[0], 0.8, True)[:, 0].astype(np.float32)
    rows, columns = np.nonzero(solid)
    points = np.stack([columns, rows], 1).astype(np.float32)
    extremes = [rows.argmin(), columns.argmax(), rows.argmax(), columns.argmin()]
    keypoints = np.concatenate([points[extremes], points.mean(0, keepdims=True)])
    return Glyph(label, ink, outline, keypoints)


def load(seed: int) -> dict[str, list[Glyph]]:
    """All digits of scikit-learn: four fifths for train, the others for val."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng([seed, 0]).permutation(len(images))
    glyphs = [draw(images[i].reshape(8, 8), int(labels[i])) for i in order]
    cut = len(glyphs) * 4 // 5
    return {
        "train": [glyph for glyph in glyphs[:cut] if glyph is not None],
        "val": [glyph for glyph in glyphs[cut:] if glyph is not None],
    }
