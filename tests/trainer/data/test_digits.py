"""The digits example: real digits on real photos, with labels that fit, the same bytes for the same seed."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from ultralytics.cfg import get_cfg

from digits import scenes
from digits.generate import generate
from digits.glyphs import FLIP_IDX, SIDE, load
from distill_trainer.data.datasets.scanned import ScannedDataset
from tests.support.models import load_dataset

COLUMNS = {"detect": {5}, "segment": set(range(9, 400, 2)), "pose": {5 + 5 * 3}, "obb": {1 + 8}}


def contents(root: Path) -> dict[str, bytes]:
    return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}


def test_the_command_writes_the_same_bytes_again_and_a_preview(tmp_path: Path) -> None:
    arguments = ["--task", "segment", "--train", "4", "--val", "2", "--imgsz", "64", "--seed", "3"]
    preview = tmp_path / "preview.png"
    arguments += ["--out", str(tmp_path / "a"), "--preview", str(preview)]
    command = [sys.executable, "-m", "digits.generate", *arguments]
    assert "4 train and 2 val images" in subprocess.run(command, check=True, capture_output=True, text=True).stdout
    generate(tmp_path / "b", "segment", {"train": 4, "val": 2}, 64, seed=3)
    generate(tmp_path / "c", "segment", {"train": 4, "val": 2}, 64, seed=4)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "b") != contents(tmp_path / "c")
    assert cv2.imread(str(preview)).std() > 10
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert "is not empty" in again.stderr


@pytest.mark.parametrize("task", list(COLUMNS))
def test_labels_are_read_by_ultralytics_without_a_loss(make_digits: Any, task: str) -> None:
    root = make_digits(task)
    info = load_dataset(root / "digits.yaml", root, task)
    data = ScannedDataset(info, info.train, imgsz=96, hyp=get_cfg(overrides={"task": task}))
    lines = [line for file in sorted((root / "labels/train").iterdir()) for line in file.read_text().splitlines()]
    assert {len(line.split()) for line in lines} <= COLUMNS[task]
    assert sum(len(label["cls"]) for label in data.labels) == len(lines) >= 24
    assert len(data) == 24


def test_train_and_val_share_neither_digits_nor_photos() -> None:
    glyphs = load(seed=0)
    ink = {split: {glyph.ink.tobytes() for glyph in glyphs[split]} for split in glyphs}
    assert not ink["train"] & ink["val"]
    assert {glyph.label for glyph in glyphs["val"]} == set(range(10))
    assert not set(scenes.PHOTOS["train"]) & set(scenes.PHOTOS["val"])


def test_labels_fit_the_ink() -> None:
    """On a black scene with one white digit, the label must be where the white is."""
    rng = np.random.default_rng(0)
    for glyph in load(seed=0)["val"][:40]:
        affine = scenes._pose(glyph, 256, 25.0, rng)
        drawn = cv2.warpAffine(glyph.ink, affine, (256, 256)) > 0.5
        outline = np.zeros((256, 256), np.uint8)
        cv2.fillPoly(outline, [np.rint(scenes._map(glyph.outline, affine)).astype(np.int32)], 1)
        assert (drawn & (outline == 0)).sum() < 0.05 * drawn.sum()
        rows, columns = np.nonzero(drawn)
        box = np.array([columns.min(), rows.min(), columns.max(), rows.max()])
        points = scenes._map(glyph.outline, affine)
        assert np.abs(np.concatenate([points.min(0), points.max(0)]) - box).max() < 2.0


def test_a_mirrored_digit_has_the_mirrored_keypoints() -> None:
    for glyph in load(seed=0)["val"][:40]:
        mirrored = glyph.keypoints[list(FLIP_IDX)] * [-1, 1] + [SIDE - 1, 0]
        x, y = mirrored[:, 0], mirrored[:, 1]
        assert x[1] == x.max()
        assert x[3] == x.min()
        assert y[0] == y.min()
        assert y[2] == y.max()
