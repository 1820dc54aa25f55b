"""The faster transforms give the pixels, labels and random numbers of Ultralytics' own, bit for bit."""

import copy
import random
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from ultralytics.data.augment import Compose, RandomPerspective

from distill_api.spec.training import Training
from distill_trainer.data.datasets import pixels
from distill_trainer.data.train import TrainData
from tests.support.models import load_dataset, train_data, val_data

TASKS = {
    "detect": {"mixup": 0.5, "cutmix": 0.5},
    "segment": {"copy_paste": 1.0, "mixup": 0.3},
    "pose": {"degrees": 20.0, "shear": 5.0},
    "obb": {"copy_paste": 1.0, "copy_paste_mode": "mixup", "degrees": 90.0},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "no mosaic": {"mosaic": 0.0},
    "some mosaics": {"mosaic": 0.5},
    "all flips and channels": {"flipud": 0.5, "fliplr": 0.5, "bgr": 0.5},
    "in perspective": {"perspective": 0.0005},
    "no hue": {"hsv_h": 0.0},
    "other colours not at all": dict.fromkeys(("hsv_h", "hsv_s", "hsv_v"), 0.0),
}


def data(root: Path, task: str, **training: Any) -> TrainData:
    settings = {"epochs": 2, "batch": 4, "imgsz": 64, "workers": 0, "close_mosaic": 1} | training
    return train_data(load_dataset(root / "digits.yaml", root, task), Training(**settings))


def samples(made: TrainData) -> list[Any]:
    """All batches of an epoch with mosaic and of one without."""
    steps = 2 * made.steps_per_epoch
    return [batch for batches in made.batches(0, steps) for batch in batches]


def assert_equal(ours: list[Any], theirs: list[Any]) -> None:
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        for key, value in one.items():
            if isinstance(value, torch.Tensor):
                assert value.is_contiguous()
                assert value.dtype == other[key].dtype
                assert torch.equal(value, other[key]), key
            else:
                assert repr(value) == repr(other[key]), key  # tuples of arrays, too


def stock(root: Path, task: str, monkeypatch: pytest.MonkeyPatch, **training: Any) -> list[Any]:
    """What Ultralytics' own transforms make of the same data."""
    with monkeypatch.context() as patch:
        patch.setattr("distill_trainer.data.datasets.scanned.make_fast", lambda _: None)
        made = data(root, task, **training)
    assert kinds(made.dataset.transforms).isdisjoint(pixels._FAST.values())
    return samples(made)


def kinds(transform: Any) -> set[type]:
    parts = [*(getattr(transform, "transforms", None) or []), getattr(transform, "pre_transform", None)]
    return {type(transform)}.union(*(kinds(part) for part in parts if part is not None))


@pytest.mark.parametrize("task", TASKS)
def test_samples_of_every_task_are_those_of_ultralytics(
    make_digits: Any, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_digits(task)
    made = data(root, task, **TASKS[task])
    assert kinds(made.dataset.transforms) >= set(pixels._FAST.values())
    assert_equal(samples(made), stock(root, task, monkeypatch, **TASKS[task]))


@pytest.mark.parametrize("options", OPTIONS)
def test_samples_are_those_of_ultralytics_with_all_options(
    make_digits: Any, options: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_digits("detect")
    ours = samples(data(root, "detect", **OPTIONS[options]))
    assert_equal(ours, stock(root, "detect", monkeypatch, **OPTIONS[options]))


@pytest.mark.parametrize("channels", [1, 4])
def test_images_without_three_channels_are_those_of_ultralytics(channels: int) -> None:
    image = np.random.RandomState(0).randint(0, 256, (48, 64, channels)).astype(np.uint8)
    theirs = Compose([RandomPerspective(degrees=10, size=(64, 64))])
    ours = copy.deepcopy(theirs)
    pixels.make_fast(ours)
    assert type(ours.transforms[0]) is pixels.FastPerspective
    found = []
    for transform in (ours, theirs):
        random.seed(1)
        params = transform.transforms[0].get_params({"img": image})
        found.append(transform.transforms[0].apply_image({"img": image.copy()}, params)["img"])
    assert np.array_equal(*found)


def test_four_channels_are_warped_like_three() -> None:
    """What FastPerspective relies on, for sizes at which OpenCV's kernels have a remainder."""
    generator = np.random.RandomState(0)
    for width, height in ((640, 480), (333, 77), (17, 9)):
        image = generator.randint(0, 256, (height, width, 3)).astype(np.uint8)
        for _ in range(20):
            matrix = np.eye(2, 3) + generator.uniform(-0.5, 0.5, (2, 3)) * [1, 1, width / 4]
            size = int(generator.randint(8, 200)), int(generator.randint(8, 200))
            three = cv2.warpAffine(image, matrix, dsize=size, borderValue=(114,) * 4)
            four = cv2.warpAffine(cv2.cvtColor(image, cv2.COLOR_BGR2BGRA), matrix, dsize=size, borderValue=(114,) * 4)
            assert np.array_equal(four[..., :3], three)


def test_validation_images_are_those_of_ultralytics(make_digits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_digits("detect", train=4, val=5)
    info = load_dataset(root / "digits.yaml", root, "detect")
    ours = val_data(info, Training(imgsz=96), batch=2)
    assert pixels.FastFormat in kinds(ours.dataset.transforms)
    monkeypatch.setattr("distill_trainer.data.datasets.scanned.make_fast", lambda _: None)
    theirs = val_data(info, Training(imgsz=96), batch=2)
    assert_equal(list(ours.batches()), list(theirs.batches()))
