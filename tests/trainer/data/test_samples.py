"""Samples are the same bytes for any number of workers, ranks and shards, and after any resume."""

import hashlib
import random
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distill_api.spec.training import Training
from distill_trainer.data import Shards, TrainData, train
from distill_trainer.data.datasets import dataset
from distill_trainer.process.machine import cpus
from tests.support.machine.processes import ANONYMOUS_SHARED, mapped_file
from tests.support.models import load_dataset, train_data

TASKS = ("detect", "segment", "pose", "obb")
EVERYTHING = {
    "degrees": 10.0, "shear": 2.0, "mosaic": 0.8, "mixup": 0.4, "cutmix": 0.3, "copy_paste": 0.5, "bgr": 0.3,
}  # fmt: skip
STEPS = 7
"""Steps of the runs below: 24 images in batches of 8 are 3 steps an epoch, so they cross two ends of epochs."""


@pytest.fixture(autouse=True)
def _enough_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "available_cpus", lambda: 4)


def data(root: Path, task: str, shards: int, my_shards: Sequence[int], workers: int = 0, **training: Any) -> TrainData:
    return train_data(
        load_dataset(root / "digits.yaml", root, task),
        Training(epochs=3, close_mosaic=1, imgsz=64, batch=8, workers=workers, **training),
        Shards(shards, tuple(my_shards)),
    )


def samples(batch: dict[str, Any]) -> Iterator[str]:
    """A digest of each sample of a shard batch, wherever in a batch it stands."""
    for number, image in enumerate(batch["img"]):
        digest = hashlib.sha256(image.numpy().tobytes())
        mine = batch["batch_idx"] == number
        for key in ("cls", "bboxes", "keypoints"):
            if key in batch:
                digest.update(batch[key][mine].numpy().tobytes())
        for key in ("masks", "sem_masks"):
            if key in batch:
                digest.update(batch[key][number].numpy().tobytes())
        digest.update(repr((batch["im_file"][number], batch["ori_shape"][number])).encode())
        yield digest.hexdigest()


def run(made: TrainData, start: int = 0, end: int = STEPS) -> list[list[str]]:
    """Digests of this rank's samples, by step."""
    return [[digest for batch in step for digest in samples(batch)] for step in made.batches(start, end)]


@pytest.fixture(scope="module", params=TASKS)
def reference(request: pytest.FixtureRequest, make_digits: Any) -> tuple[str, Path, list[list[str]]]:
    root = make_digits(request.param)
    return request.param, root, run(data(root, request.param, 1, [0], **EVERYTHING))


def test_samples_are_all_different_and_every_epoch_augments_anew(reference: tuple[str, Path, list[list[str]]]) -> None:
    flat = list(chain(*reference[2]))
    assert len(flat) == STEPS * 8
    assert len(set(flat)) == len(flat)


@pytest.mark.parametrize("count", [1, 2])
def test_workers_do_not_matter(reference: tuple[str, Path, list[list[str]]], count: int) -> None:
    task, root, expected = reference
    made = data(root, task, 1, [0], workers=count, **EVERYTHING)
    assert made.workers == count
    assert run(made) == expected


@pytest.mark.parametrize(("world_size", "shards"), [(1, 4), (2, 2), (2, 4), (3, 4), (4, 4)])
def test_ranks_and_shards_do_not_matter(
    reference: tuple[str, Path, list[list[str]]], world_size: int, shards: int
) -> None:
    task, root, expected = reference
    ranks = [run(data(root, task, shards, range(rank, shards, world_size), **EVERYTHING)) for rank in range(world_size)]
    together = [sorted(chain(*(rank[step] for rank in ranks))) for step in range(STEPS)]
    assert together == [sorted(step) for step in expected]


@pytest.mark.parametrize("count", [0, 2])
def test_a_run_resumed_in_mid_epoch_sees_the_rest(reference: tuple[str, Path, list[list[str]]], count: int) -> None:
    task, root, expected = reference
    assert run(data(root, task, 1, [0], workers=count, **EVERYTHING), start=4) == expected[4:]


def test_objects_pasted_from_other_images_do_not_depend_on_workers(make_digits: Any) -> None:
    mixed = EVERYTHING | {"copy_paste": 1.0, "copy_paste_mode": "mixup"}
    runs = [run(data(make_digits("segment"), "segment", 1, [0], workers=count, **mixed)) for count in (0, 3)]
    assert runs[0] == runs[1]
    assert runs[0] != run(data(make_digits("segment"), "segment", 1, [0], **EVERYTHING))


def test_the_image_cache_does_not_matter(
    reference: tuple[str, Path, list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    task, root, expected = reference
    monkeypatch.setattr(dataset, "CACHE_BYTES", 3 * 64 * 64 * 3)
    assert run(data(root, task, 1, [0], **EVERYTHING)) == expected


@pytest.mark.parametrize(("shards", "count"), [(1, 2), (4, 1)])
def test_images_come_in_slots_and_nothing_through_dev_shm(
    reference: tuple[str, Path, list[list[str]]], shards: int, count: int
) -> None:
    task, root, _ = reference
    for step in data(root, task, shards, range(shards), workers=count, **EVERYTHING).batches(0, 9):
        for batch in step:
            files = {key: mapped_file(value) for key, value in batch.items() if isinstance(value, torch.Tensor)}
            assert files.pop("img") == ANONYMOUS_SHARED
            assert {"cls", "bboxes", "batch_idx"} <= set(files)
            assert set(files.values()) <= {"", "[heap]"}


def test_the_way_through_pipes_is_told_once_an_epoch(make_digits: Any, caplog: pytest.LogCaptureFixture) -> None:
    made = data(make_digits(), "detect", 1, [0], workers=1)
    made._images_bytes = 1
    steps = made.steps_per_epoch
    assert len(list(made.batches(0, 2 * steps))) == 2 * steps
    told = [
        record.getMessage().partition(":")[0] for record in caplog.records if "through pipes" in record.getMessage()
    ]
    assert told == ["epoch 1", "epoch 2"]


def test_the_seed_matters(make_digits: Any) -> None:
    made = data(make_digits(), "detect", 1, [0])
    other = data(make_digits(), "detect", 1, [0])
    other.dataset._seed = 1
    assert run(made, 0, 1) != run(other, 0, 1)


def test_the_trainers_own_generators_are_left_alone(make_digits: Any) -> None:
    for generator in (random, np.random):
        generator.seed(7)
    torch.manual_seed(7)
    expected = random.random(), np.random.random(), torch.rand(1)
    for count in (0, 2):
        random.seed(7)
        np.random.seed(7)
        torch.manual_seed(7)
        run(data(make_digits(), "detect", 1, [0], workers=count))
        assert (random.random(), np.random.random(), torch.rand(1)) == expected


def test_mosaic_ends_where_close_mosaic_says(make_digits: Any) -> None:
    """Without any other augmentation, an image of the last epoch is the file's own pixels; a mosaic never is."""
    still = dict.fromkeys(("hsv_h", "hsv_s", "hsv_v", "translate", "scale", "fliplr"), 0.0)
    made = data(make_digits(), "detect", 1, [0], **still)
    (batch,) = next(made.batches(6, 7))
    plain = made.dataset.load_image(made.order.sample(2, 0).index)[0]
    assert np.array_equal(batch["img"][0].numpy(), plain.transpose(2, 0, 1)[::-1])
    (batch,) = next(made.batches(5, 6))
    plain = made.dataset.load_image(made.order.sample(1, 16).index)[0]
    assert not np.array_equal(batch["img"][0].numpy(), plain.transpose(2, 0, 1)[::-1])


def test_batches_are_what_ultralytics_models_take(make_digits: Any) -> None:
    (batch, second) = next(data(make_digits("pose"), "pose", 2, [0, 1]).batches(0, 1))
    assert (batch["img"].dtype, tuple(batch["img"].shape)) == (torch.uint8, (4, 3, 64, 64))
    assert batch["keypoints"].shape[1:] == (5, 3)
    assert set(batch["batch_idx"].tolist()) <= {0.0, 1.0, 2.0, 3.0}
    assert second.keys() == batch.keys()


def test_workers_are_lowered_to_the_ranks_share_of_the_cpus(make_digits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert data(make_digits(), "detect", 1, [0], workers=8).workers == 2
    assert cpus.worker_count(requested=8, ranks_on_node=8, cpus=4) == 0
