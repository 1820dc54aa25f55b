"""Generates a data set of real handwritten digits on real photos in YOLO format; the same bytes for the same seed.

python -m digits.generate --out DIR --task detect --train 1500 --val 300 --imgsz 128 --seed 0
"""

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from digits import glyphs, scenes
from digits.preview import contact_sheet

SPLITS = ("train", "val")
JPEG = (cv2.IMWRITE_JPEG_QUALITY, 92)


def _numbers(values: Iterable[float]) -> str:
    return " ".join(f"{value:.6f}" for value in values)


def _detect(digit: scenes.Placed) -> str:
    return _numbers(digit.box)


def _segment(digit: scenes.Placed) -> str:
    return _numbers(digit.outline.ravel())


def _pose(digit: scenes.Placed) -> str:
    return f"{_numbers(digit.box)} " + " ".join(f"{_numbers(point)} 2" for point in digit.keypoints)


def _obb(digit: scenes.Placed) -> str:
    return _numbers(np.clip(digit.corners, 0, 1).ravel())


LABEL: dict[str, Callable[[scenes.Placed], str]] = {
    "detect": _detect,
    "segment": _segment,
    "pose": _pose,
    "obb": _obb,
}
"""The part of a label line after the class number, by task."""


def write_config(root: Path, task: str) -> None:
    """Write digits.yaml, without `path`, so that the data set can be mounted anywhere."""
    config: dict[str, object] = {
        "train": "images/train",
        "val": "images/val",
        "names": dict(enumerate(glyphs.NAMES)),
    }
    if task == "pose":
        config["kpt_shape"] = [len(glyphs.KEYPOINTS), 3]
        config["flip_idx"] = list(glyphs.FLIP_IDX)
    (root / "digits.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def generate(
    root: Path,
    task: str,
    counts: dict[str, int],
    imgsz: int,
    seed: int,
    *,
    load: Callable[[int], dict[str, list[glyphs.Glyph]]] = glyphs.load,
    make: Callable[..., tuple[NDArray[np.uint8], list[scenes.Placed]]] = scenes.make,
) -> None:
    """Write the data set to `root`. A scene depends only on the seed, the split and its number.

    `load` gives the digits of each split, and `make` draws a scene as scenes.make does.
    """
    digits = load(seed)
    for split_number, split in enumerate(SPLITS):
        images, labels = root / "images" / split, root / "labels" / split
        images.mkdir(parents=True, exist_ok=True)
        labels.mkdir(parents=True, exist_ok=True)
        photos = scenes.load_photos(split)
        for number in range(counts[split]):
            rng = np.random.default_rng([seed, 1 + split_number, number])
            photo = photos[int(rng.integers(len(photos)))]
            image, placed = make(photo, digits[split], imgsz, task, rng)
            lines = [f"{digit.label} {LABEL[task](digit)}\n" for digit in placed]
            (labels / f"{number:06d}.txt").write_text("".join(lines))
            cv2.imwrite(str(images / f"{number:06d}.jpg"), image, JPEG)
    write_config(root, task)


def main() -> None:
    """Parse the command line and generate the data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="output folder; must be empty or missing")
    parser.add_argument("--task", choices=sorted(LABEL), default="detect")
    parser.add_argument("--train", type=int, default=1500, help="training images")
    parser.add_argument("--val", type=int, default=300, help="validation images")
    parser.add_argument("--imgsz", type=int, default=128, help="side of the square images in pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--preview", type=Path, help="also write a contact sheet with the labels drawn (.png)")
    args = parser.parse_args()
    if args.train < 1 or args.val < 1 or args.imgsz < 32:
        parser.error("--train and --val must be at least 1 and --imgsz at least 32")
    if args.out.exists() and any(args.out.iterdir()):
        parser.error(f"{args.out} is not empty; choose another folder or delete its files")
    generate(args.out, args.task, {"train": args.train, "val": args.val}, args.imgsz, args.seed)
    if args.preview:
        contact_sheet(args.out, args.task, args.preview)
    print(f"{args.out / 'digits.yaml'}: {args.task}, {args.train} train and {args.val} val images")


if __name__ == "__main__":
    main()
