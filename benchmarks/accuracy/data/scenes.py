"""Harder scenes than the example's, and scenes of another look: printed digits on paper.

Everything is drawn from what ships in the wheels of scikit-learn (digits; photos under CC BY 2.0) and scikit-image
(photos whose terms its registry names), and from OpenCV's Hershey fonts (free to use).
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from digits.glyphs import SIDE, Glyph, trace
from digits.scenes import MAX_TURN, UPRIGHT_TURN, Placed, background
from digits.scenes import make as make_plain

Image = NDArray[Any]
"""[height, width, BGR], of 0 to 255."""
SIZES = (0.1, 0.45)
"""Side of a digit's canvas in hard scenes, as a share of the image's; the ink is about half as large."""
HIDDEN = 0.4
"""Largest part of a digit's box that another one may cover."""
FONTS = (
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_COMPLEX,
    cv2.FONT_HERSHEY_TRIPLEX,
    cv2.FONT_HERSHEY_SCRIPT_SIMPLEX,
)
PRINTED = {"train": 600, "val": 200}
"""Printed digits of each split."""


def make_hard(
    photo: NDArray[np.uint8], glyphs: list[Glyph], imgsz: int, task: str, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], list[Placed]]:
    """Draw two to ten digits that may overlap, some of them behind patches, in bad light, blurred and noisy.

    Labels are of whole digits, hidden parts included. Returns the image as BGR, [imgsz, imgsz, 3], and its digits.
    """
    image: Image = background(photo, imgsz, rng)
    placed: list[Placed] = []
    taken: list[NDArray[np.float32]] = []
    wanted = int(rng.integers(2, 11))
    for _ in range(4 * wanted):
        glyph = glyphs[int(rng.integers(len(glyphs)))]
        affine = _pose(glyph, imgsz, MAX_TURN.get(task, UPRIGHT_TURN), rng)
        outline = _map(glyph.outline, affine)
        box = np.concatenate([outline.min(0), outline.max(0)])
        if any(_covered(box, other) > HIDDEN for other in taken):
            continue
        image = _drawn(image, cv2.warpAffine(glyph.ink, affine, (imgsz, imgsz), flags=cv2.INTER_LINEAR), rng)
        taken.append(box)
        points = (outline, _map(glyph.keypoints, affine), _map(glyph.corners, affine))
        placed.append(Placed(glyph.label, *((p + 0.5) / imgsz for p in points)))
        if len(placed) == wanted:
            break
    for box in taken:
        if rng.random() < 0.2:
            _hide(image, background(photo, imgsz, rng), box, rng)
    return _spoil(image, rng), placed


def make_print(
    photo: NDArray[np.uint8], glyphs: list[Glyph], imgsz: int, task: str, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], list[Placed]]:
    """Draw digits on paper: a scene as the example's, on a pale and almost grey photo."""
    grey = cv2.cvtColor(photo, cv2.COLOR_BGR2GRAY).astype(np.float32)
    tint = rng.uniform(0.85, 1.0, 3)
    paper = (255 - 0.35 * (255 - grey))[..., None] * tint
    return make_plain(paper.astype(np.uint8), glyphs, imgsz, task, rng)


def printed(seed: int) -> dict[str, list[Glyph]]:
    """Printed digits: fonts, weights and slants differ from digit to digit, and between the splits."""
    found = {}
    for number, (split, count) in enumerate(PRINTED.items()):
        rng = np.random.default_rng([seed, 10 + number])
        glyphs = [_printed(int(rng.integers(10)), rng) for _ in range(count)]
        found[split] = [glyph for glyph in glyphs if glyph is not None]
    return found


def _printed(label: int, rng: np.random.Generator) -> Glyph | None:
    font, thickness = FONTS[int(rng.integers(len(FONTS)))], int(rng.integers(3, 9))
    scale = rng.uniform(1.4, 1.9)
    (width, height), _ = cv2.getTextSize(str(label), font, scale, thickness)
    canvas = np.zeros((SIDE, SIDE), np.uint8)
    corner = ((SIDE - width) // 2, (SIDE + height) // 2)
    cv2.putText(canvas, str(label), corner, font, scale, 255, thickness, cv2.LINE_8)
    slant = rng.uniform(-0.2, 0.2)
    shear = np.array([[1, slant, -slant * SIDE / 2], [0, 1, 0]], np.float32)
    ink = cv2.warpAffine(canvas, shear, (SIDE, SIDE)).astype(np.float32) / 255
    return trace(cv2.GaussianBlur(ink, (0, 0), 1.0), label)


def _pose(glyph: Glyph, imgsz: int, turn: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Affine map [2, 3] from the glyph's canvas to the image, with the whole digit inside."""
    low, high = np.log(SIZES)
    scale = imgsz * float(np.exp(rng.uniform(low, high))) / SIDE
    angle, stretch = np.deg2rad(rng.uniform(-turn, turn)), rng.uniform(0.8, 1.25)
    turned = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turned = turned @ np.diag([scale * stretch, scale / stretch])
    reach = glyph.corners @ turned.T
    shift = rng.uniform(1 - reach.min(0), imgsz - 2 - reach.max(0))
    return np.column_stack([turned, shift]).astype(np.float32)


def _map(points: NDArray[np.float32], affine: NDArray[np.float32]) -> NDArray[np.float32]:
    return points @ affine[:, :2].T + affine[:, 2]


def _covered(box: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """The part of the smaller box that both share."""
    sides = np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2])
    smaller = min(float(np.prod(each[2:] - each[:2])) for each in (box, other))
    return float(np.prod(np.clip(sides, 0, None))) / max(smaller, 1e-6)


def _drawn(image: Image, ink: NDArray[Any], rng: np.random.Generator) -> Image:
    """The image with ink of a random colour, which differs a little from what is under it."""
    under = image[ink > 0.5].mean() if (ink > 0.5).any() else 128.0
    colour = rng.uniform(0, 255, 3)
    while abs(colour.mean() - under) < 35:
        colour = rng.uniform(0, 255, 3)
    alpha = (ink * rng.uniform(0.6, 1.0))[..., None]
    return (image * (1 - alpha) + colour * alpha).astype(np.float32)


def _hide(image: Image, patch: Image, box: NDArray[np.float32], rng: np.random.Generator) -> None:
    """Paste a patch over up to a third of a box, from one of its sides."""
    left, top, right, bottom = box
    share = rng.uniform(0.15, 0.33)
    if rng.random() < 0.5:
        right = left + share * (right - left)
    else:
        top = bottom - share * (bottom - top)
    rows, columns = slice(int(top), int(bottom) + 1), slice(int(left), int(right) + 1)
    image[rows, columns] = patch[rows, columns]


def _spoil(image: Image, rng: np.random.Generator) -> Image:
    """Uneven light, blur, noise and JPEG's artefacts, each of a random strength."""
    side = image.shape[0]
    ramp = np.linspace(rng.uniform(0.5, 1.1), rng.uniform(0.5, 1.1), side, dtype=np.float32)
    light = ramp[:, None] if rng.random() < 0.5 else ramp[None, :]
    image = image * light[..., None]
    if rng.random() < 0.5:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.2))
    image = image + rng.normal(0, rng.uniform(0, 12), image.shape)
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 95))]
    spoilt: Any = cv2.imdecode(cv2.imencode(".jpg", np.clip(np.rint(image), 0, 255).astype(np.uint8), quality)[1], 1)
    return spoilt
