"""Draws a contact sheet of a data set with the labels of its label files."""

from pathlib import Path

import cv2
import numpy as np

from digits.glyphs import NAMES

COLOURS = ((66, 135, 245), (80, 220, 100), (60, 200, 250), (240, 120, 200), (250, 250, 80))
TILE = 256


def _draw(image: np.ndarray, line: str, task: str) -> None:
    values = [float(v) for v in line.split()]
    colour = COLOURS[int(values[0]) % len(COLOURS)]
    if task in ("detect", "pose"):
        x, y, width, height = (np.array(values[1:5]) * TILE).tolist()
        corners = np.array([[x - width / 2, y - height / 2], [x + width / 2, y + height / 2]]).astype(int)
        cv2.rectangle(image, corners[0].tolist(), corners[1].tolist(), colour, 1, cv2.LINE_AA)
        top = corners[0]
        for number, (px, py, _) in enumerate(np.array(values[5:]).reshape(-1, 3) * TILE):
            cv2.circle(image, (int(px), int(py)), 3, COLOURS[number], -1, cv2.LINE_AA)
    else:
        polygon = (np.array(values[1:]).reshape(-1, 1, 2) * TILE).astype(np.int32)
        cv2.polylines(image, [polygon], True, colour, 1, cv2.LINE_AA)
        top = polygon[:, 0].min(0)
    name = NAMES[int(values[0])]
    cv2.putText(image, name, (int(top[0]), int(top[1]) - 3), cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, 1, cv2.LINE_AA)


def contact_sheet(root: Path, task: str, file: Path, columns: int = 5, rows: int = 2) -> None:
    """Write `rows` rows of train images and `rows` rows of val images to `file`."""
    tiles = []
    for split in ("train", "val"):
        for picture in sorted((root / "images" / split).iterdir())[: columns * rows]:
            image = cv2.resize(cv2.imread(str(picture)), (TILE, TILE), interpolation=cv2.INTER_LINEAR)
            for line in (root / "labels" / split / f"{picture.stem}.txt").read_text().splitlines():
                _draw(image, line, task)
            tiles.append(image)
        tiles += [np.zeros((TILE, TILE, 3), np.uint8)] * (-len(tiles) % columns)
    strips = [np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
    file.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(file), np.vstack(strips))
