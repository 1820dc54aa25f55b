"""Draws scenes: rotated, scaled and coloured digits on a crop of a photo."""

from dataclasses import dataclass
from importlib.resources import files

import cv2
import numpy as np
from numpy.typing import NDArray

from digits.glyphs import SIDE, Glyph

PHOTOS = {
    "train": (
        ("sklearn.datasets.images", "china.jpg"),
        ("skimage.data", "astronaut.png"),
        ("skimage.data", "chelsea.png"),
        ("skimage.data", "rocket.jpg"),
        ("skimage.data", "motorcycle_left.png"),
        ("skimage.data", "grass.png"),
        ("skimage.data", "ihc.png"),
        ("skimage.data", "moon.png"),
    ),
    "val": (
        ("sklearn.datasets.images", "flower.jpg"),
        ("skimage.data", "coffee.png"),
        ("skimage.data", "camera.png"),
        ("skimage.data", "gravel.png"),
    ),
}
"""Photos from the wheels of scikit-learn and scikit-image; no photo is in both splits."""

MAX_TURN = {"obb": 70.0}
"""Largest rotation in degrees by task: below 90, so that a 6 does not become a 9. Others use UPRIGHT_TURN."""
UPRIGHT_TURN = 25.0


@dataclass(frozen=True)
class Placed:
    """A digit in a scene; points are [n, 2] as (x, y) from 0 to 1."""

    label: int
    outline: NDArray[np.float32]
    keypoints: NDArray[np.float32]
    corners: NDArray[np.float32]

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Axis-aligned box of the ink: centre x, centre y, width, height."""
        low, high = self.outline.min(0), self.outline.max(0)
        x, y = (low + high) / 2
        width, height = high - low
        return float(x), float(y), float(width), float(height)


def load_photos(split: str) -> list[NDArray[np.uint8]]:
    """The split's photos as BGR, [H, W, 3]."""
    photos = []
    for package, name in PHOTOS[split]:
        data = files(package).joinpath(name).read_bytes()
        photos.append(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))
    return photos


def background(photo: NDArray[np.uint8], imgsz: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """A random square crop of a photo, [imgsz, imgsz, 3], with random mirroring and brightness."""
    side = int(min(photo.shape[:2]) * rng.uniform(0.3, 0.9))
    y, x = (int(rng.integers(0, length - side + 1)) for length in photo.shape[:2])
    crop = cv2.resize(photo[y : y + side, x : x + side], (imgsz, imgsz), interpolation=cv2.INTER_AREA)
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    return np.clip(crop * rng.uniform(0.7, 1.15), 0, 255).astype(np.float32)


def _pose(glyph: Glyph, imgsz: int, turn: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Affine map [2, 3] from the glyph's canvas to the image, with the whole digit inside."""
    scale = imgsz * float(np.exp(rng.uniform(np.log(0.2), np.log(0.5)))) / SIDE
    stretch = rng.uniform(0.85, 1.15)
    angle = np.deg2rad(rng.uniform(-turn, turn))
    cos, sin = np.cos(angle), np.sin(angle)
    turned = np.array([[cos, -sin], [sin, cos]]) @ np.diag([scale * stretch, scale / stretch])
    reach = glyph.corners @ turned.T
    low, high = reach.min(0), reach.max(0)
    shift = rng.uniform(2 - low, imgsz - 3 - high)
    return np.column_stack([turned, shift]).astype(np.float32)


def _map(points: NDArray[np.float32], affine: NDArray[np.float32]) -> NDArray[np.float32]:
    return points @ affine[:, :2].T + affine[:, 2]


def _overlaps(box: NDArray[np.float32], taken: list[NDArray[np.float32]]) -> bool:
    return any(bool(np.all(box[:2] < other[2:]) and np.all(other[:2] < box[2:])) for other in taken)


def _colour(under: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """A random colour with enough contrast to the mean of the pixels under it."""
    grey = under.mean(0)
    while True:
        colour = rng.uniform(0, 255, 3).astype(np.float32)
        if abs(float(colour.mean() - grey.mean())) > 60:
            return colour


def make(
    photo: NDArray[np.uint8], glyphs: list[Glyph], imgsz: int, task: str, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], list[Placed]]:
    """Draw one to six digits that do not overlap. Returns the image as BGR, [imgsz, imgsz, 3], and its digits."""
    image = background(photo, imgsz, rng)
    placed: list[Placed] = []
    taken: list[NDArray[np.float32]] = []
    wanted = int(rng.integers(1, 7))
    for _ in range(4 * wanted):
        glyph = glyphs[int(rng.integers(len(glyphs)))]
        affine = _pose(glyph, imgsz, MAX_TURN.get(task, UPRIGHT_TURN), rng)
        outline = _map(glyph.outline, affine)
        box = np.concatenate([outline.min(0) - 1, outline.max(0) + 1])
        if _overlaps(box, taken):
            continue
        ink = cv2.warpAffine(glyph.ink, affine, (imgsz, imgsz), flags=cv2.INTER_LINEAR)
        colour = _colour(image[ink > 0.5], rng)
        alpha = (ink * rng.uniform(0.75, 1.0))[..., None]
        image = image * (1 - alpha) + colour * alpha
        taken.append(box)
        # warpAffine's coordinate i is the centre of pixel i, which is at i + 0.5 here.
        points = (outline, _map(glyph.keypoints, affine), _map(glyph.corners, affine))
        placed.append(Placed(glyph.label, *((p + 0.5) / imgsz for p in points)))
        if len(placed) == wanted:
            break
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), placed
