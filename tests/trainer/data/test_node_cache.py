"""With copies on the node, samples are the same bit for bit, whatever state the copies are in."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from distill_api.spec.training import Training
from distill_trainer.data import DatasetInfo, node_cache
from distill_trainer.data.labels.truncated import lacks_end_marker
from distill_trainer.data.node_cache import NodeCache
from tests.support.models import load_dataset, train_data, val_data

ALL = 10**9


@pytest.fixture
def root(make_digits: Any, tmp_path: Path) -> Path:
    root = Path(shutil.copytree(make_digits("detect"), tmp_path / "data"))
    image = root / "images/train/000005.jpg"
    image.write_bytes(image.read_bytes()[:-2])
    assert lacks_end_marker(str(image))
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The images that were read to be copied."""
    found: list[str] = []

    def read(image: str) -> Any:
        found.append(image)
        return real(image)

    real = node_cache.read
    monkeypatch.setattr(node_cache, "read", read)
    return found


def load(root: Path) -> DatasetInfo:
    return load_dataset(root / "digits.yaml", root, "detect")


def samples(info: DatasetInfo, workers: int = 0) -> list[Any]:
    """An epoch of training and all validation images."""
    training = Training(epochs=1, batch=4, imgsz=96, workers=workers)
    made = train_data(info, training)
    train = [batch for batches in made.batches(0, made.steps_per_epoch) for batch in batches]
    return [*train, *val_data(info, training, batch=2).batches()]


def assert_equal(ours: list[Any], theirs: list[Any]) -> None:
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        for key, value in one.items():
            same = (
                torch.equal(value, other[key]) if isinstance(value, torch.Tensor) else repr(value) == repr(other[key])
            )
            assert same, key


def copies(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.jpg"))


def half(info: DatasetInfo) -> int:
    return int((-(-info.train.sizes // 4096) * 4096).sum() // 2)


def test_samples_are_the_same_with_no_some_and_all_copies(root: Path, folder: Path, reads: list[str]) -> None:
    info = load(root)
    expected = samples(info)
    images = len(info.train) + len(info.val)
    filled = info.with_cache(folder, ALL)
    assert_equal(samples(filled), expected)
    assert len(copies(folder)) == len(reads) == images
    assert filled.cache is not None
    assert filled.cache.progress() == (images, images)
    assert_equal(samples(load(root).with_cache(folder, ALL)), expected)
    assert len(reads) == images, "another process of the node copies nothing again"
    for copy in copies(folder)[::2]:
        copy.unlink()
    assert_equal(samples(load(root).with_cache(folder, ALL)), expected)
    assert len(copies(folder)) == images


def test_all_copies_together_take_no_more_than_the_size(root: Path, folder: Path) -> None:
    info = load(root)
    expected = samples(info)
    bounded = info.with_cache(folder, half(info))
    assert_equal(samples(bounded), expected)
    taken = sum(path.stat().st_blocks * 512 for path in copies(folder))
    assert half(info) * 0.8 <= taken <= half(info)
    assert bounded.cache is not None
    assert bounded.cache.progress() == (len(copies(folder)),) * 2
    assert {path.read_bytes() for path in copies(folder)} == {
        Path(image).read_bytes() for image in info.train.images[: len(copies(folder))]
    }


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "cut off": lambda copy: os.truncate(copy, copy.stat().st_size * 3 // 4),
    "empty": lambda copy: os.truncate(copy, 0),
    "longer": lambda copy: copy.write_bytes(copy.read_bytes() * 2),
    "no image": lambda copy: copy.write_bytes(bytes(copy.stat().st_size)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_copy_is_never_trained_on(root: Path, folder: Path, damage: str) -> None:
    info = load(root)
    expected = samples(info)
    samples(info.with_cache(folder, ALL))
    for copy in copies(folder):
        DAMAGES[damage](copy)
    assert_equal(samples(load(root).with_cache(folder, ALL)), expected)
    if damage != "no image":
        images = {Path(image).read_bytes() for image in (*info.train.images, *info.val.images)}
        assert {copy.read_bytes() for copy in copies(folder)} == images, "one of another size is made anew"


@pytest.mark.parametrize("same_size", [True, False])
def test_a_changed_image_is_read_anew_in_the_next_attempt(root: Path, folder: Path, same_size: bool) -> None:
    samples(load(root).with_cache(folder, ALL))
    small, *_, image = sorted((root / "images/train").iterdir(), key=lambda path: path.stat().st_size)
    content = small.read_bytes()
    image.write_bytes(content.ljust(image.stat().st_size, b"\0") if same_size else content)
    os.utime(image, ns=(1, image.stat().st_mtime_ns + 10**9))
    expected = samples(load(root))
    assert_equal(samples(load(root).with_cache(folder, ALL)), expected)


def test_an_image_that_changes_in_an_attempt_is_not_copied(root: Path, folder: Path) -> None:
    info = load(root)
    cached = load(root).with_cache(folder, ALL)
    image = root / "images/train/000003.jpg"
    image.write_bytes((root / "images/train/000007.jpg").read_bytes())
    assert_equal(samples(cached), samples(info))
    assert len(copies(folder)) == len(info.train) + len(info.val) - 1


def test_workers_fill_side_by_side(root: Path, folder: Path) -> None:
    info = load(root)
    cached = info.with_cache(folder, ALL)
    assert_equal(samples(cached, workers=2), samples(info))
    assert cached.cache is not None
    assert cached.cache.progress()[0] == len(info.train) + len(info.val)
    assert not list(folder.rglob("*.tmp"))


def test_a_folder_that_cannot_be_written_costs_only_time(root: Path, folder: Path, reads: list[str]) -> None:
    info = load(root)
    cached = info.with_cache(folder, ALL)
    for name in range(256):
        (folder / f"{name:02x}").write_text("in the way")
    assert_equal(samples(cached), samples(info))
    assert not copies(folder)
    assert reads


def test_a_full_disk_ends_the_copying(root: Path, folder: Path, reads: list[str], monkeypatch: Any) -> None:
    info = load(root)
    cached = info.with_cache(folder, ALL)
    monkeypatch.setattr(node_cache.os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "no space left")))
    assert_equal(samples(cached), samples(info))
    assert len(reads) == 2, "one of training, one of validation"
    assert not list(folder.rglob("*.tmp"))
    assert not NodeCache(folder, ALL, [info.train]).progress()[0]
