"""When batches are loaded and preprocessed, and which step's image size they get."""

from collections.abc import Iterator
from typing import Any

import torch

from distill_trainer.training.device.preprocess import Preprocess
from distill_trainer.training.device.upload import Uploaded, Uploads
from tests.support.models import CPU, shard_batch

VARYING = Preprocess(CPU, 128, 32, 0.5, seed=4)


class Loader:
    """Batches of steps 3 to 5, and how many were asked for."""

    def __init__(self) -> None:
        self.loaded = 0

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        for step in range(3, 6):
            self.loaded += 1
            yield [shard_batch(1, seed=step, imgsz=128)]


def test_ahead_the_next_steps_batches_are_preprocessed_for_that_step() -> None:
    loader = Loader()
    uploads = Uploads(iter(loader), VARYING, 3, ahead=True)
    first = uploads.take()
    assert isinstance(first[0], dict)  # nothing was there to load it before
    for step in (4, 5):
        uploads.load_next()
        uploads.load_next()  # once is enough
        assert loader.loaded == step - 2
        (uploaded,) = uploads.take()
        assert loader.loaded == step - 2
        assert isinstance(uploaded, Uploaded)
        expected = VARYING(shard_batch(1, seed=step, imgsz=128), step)
        batch = uploaded.synchronize()
        assert batch.keys() == expected.keys()
        assert all(torch.equal(batch[key], expected[key]) for key in expected)
    uploads.load_next()  # there are no more


def test_otherwise_batches_are_loaded_when_needed_and_left_as_they_are() -> None:
    loader = Loader()
    uploads = Uploads(iter(loader), VARYING, 3, ahead=False)
    for count in (1, 2, 3):
        uploads.load_next()
        assert loader.loaded == count - 1
        (batch,) = uploads.take()
        assert not isinstance(batch, Uploaded)
        assert batch["img"].dtype is torch.uint8
