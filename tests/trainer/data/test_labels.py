"""A label file holds exactly what a scan finds; it is made anew when a file has changed, and only then."""

import mmap
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill_api.errors import Permanent, Retryable
from distill_api.reasons import Reason
from distill_trainer.data.config import DatasetConfig, DatasetInfo, read_dataset
from distill_trainer.data.labels import listing, scan
from distill_trainer.data.labels.opening import LabelFolder
from distill_trainer.data.labels.table import LabelTable
from tests.support.machine.python import environment
from tests.support.models import load_dataset

TASKS = ("detect", "segment", "pose", "obb")


@pytest.fixture
def root(make_digits: Any, tmp_path: Path) -> Path:
    return Path(shutil.copytree(make_digits("detect"), tmp_path / "data"))


@pytest.fixture
def folder(tmp_path: Path) -> LabelFolder:
    return LabelFolder(tmp_path / "results" / "labels")


def config(root: Path, task: str = "detect", **settings: Any) -> DatasetConfig:
    return read_dataset(root / "digits.yaml", root, task, **settings)


def opened(folder: LabelFolder, found: DatasetConfig) -> DatasetInfo:
    return folder.open(found, folder.refresh(found))


def assert_equal(ours: LabelTable, theirs: LabelTable) -> None:
    assert len(ours) == len(theirs) > 0
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.keys() == other.keys()
        for key, value in mine.items():
            values = value if isinstance(value, list) else [value]
            others = other[key] if isinstance(value, list) else [other[key]]
            assert len(values) == len(others)
            assert all(np.array_equal(one, another) for one, another in zip(values, others, strict=True)), key


@pytest.mark.parametrize("task", TASKS)
def test_a_label_file_holds_what_a_scan_finds(make_digits: Any, folder: LabelFolder, task: str) -> None:
    root = make_digits(task)
    scanned = load_dataset(root / "digits.yaml", root, task)
    found = opened(folder, config(root, task))
    assert found.digest == scanned.digest
    for split in ("train", "val"):
        assert_equal(getattr(found, split), getattr(scanned, split))


def test_processes_beside_each_other_find_what_one_finds(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = load_dataset(root / "digits.yaml", root, "detect")
    monkeypatch.setattr(scan, "_CHUNK", 5)
    monkeypatch.setattr(scan, "available_cpus", lambda: 2)
    assert_equal(load_dataset(root / "digits.yaml", root, "detect").train, alone.train)


def test_labels_are_mapped_and_cannot_be_changed(root: Path, folder: LabelFolder) -> None:
    found = opened(folder, config(root))
    base: Any = found.train.classes
    while not isinstance(base, mmap.mmap):
        base = base.obj if isinstance(base, memoryview) else base.base
    (file,) = folder.folder.iterdir()
    assert str(file) in Path("/proc/self/maps").read_text()
    with pytest.raises(ValueError, match="read-only"):
        found.train[0]["cls"][:] = 3


def test_a_second_attempt_reads_neither_labels_nor_images(root: Path, folder: LabelFolder) -> None:
    """Files that have their old size and time, but not their old contents, can only be told by reading them."""
    first = opened(folder, config(root))
    before = {file: file.stat() for file in folder.folder.iterdir()}
    for file in (*(root / "labels").rglob("*.txt"), *(root / "images").rglob("*.jpg")):
        found = file.stat()
        file.write_bytes(bytes(found.st_size))
        os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))
    again = opened(folder, config(root))
    assert again.digest == first.digest
    assert_equal(again.train, first.train)
    assert {file: file.stat() for file in folder.folder.iterdir()} == before


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "labels/train/000000.txt").write_text("3 .5 .5 .25 .25\n"),
        lambda root: (root / "labels/train/000000.txt").unlink(),
        lambda root: (root / "images/train/000000.jpg").unlink(),
        lambda root: shutil.copy(root / "images/val/000000.jpg", root / "images/train/more.jpg"),
        lambda root: os.utime(root / "labels/val/000000.txt"),
    ],
    ids=["another label", "a label file less", "an image less", "an image more", "another time"],
)
def test_a_change_is_scanned_and_the_old_file_goes(
    root: Path, folder: LabelFolder, change: Callable[[Path], Any]
) -> None:
    opened(folder, config(root))
    before = list(folder.folder.iterdir())
    change(root)
    found = opened(folder, config(root))
    assert_equal(found.train, load_dataset(root / "digits.yaml", root, "detect").train)
    (now,) = folder.folder.iterdir()
    assert [now] != before


def test_other_settings_are_scanned_again(root: Path, folder: LabelFolder) -> None:
    digests = {
        opened(folder, found).digest
        for found in (config(root), config(root, single_cls=True), config(root, fraction=0.5), config(root, "detect"))
    }
    assert len(digests) == 3


@pytest.mark.parametrize(
    "harm",
    [
        lambda content: content[:-1],
        lambda content: content[:100],
        lambda content: content[:0],
        lambda content: content[:-200] + bytes([content[-200] ^ 1]) + content[-199:],
        lambda content: b"\x80\x05" + content,
    ],
    ids=["torn", "torn early", "empty", "a bit flipped", "foreign"],
)
def test_a_damaged_file_is_written_anew(
    root: Path, folder: LabelFolder, harm: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    opened(folder, config(root))
    (file,) = folder.folder.iterdir()
    intact = file.read_bytes()
    file.write_bytes(harm(intact))
    opened(folder, config(root))
    assert file.read_bytes() == intact
    assert f"label file {file} is replaced" in caplog.text


def test_a_superseded_life_of_the_job_neither_writes_nor_deletes(root: Path, folder: LabelFolder) -> None:
    def superseded() -> None:
        raise Retryable(Reason.SUPERSEDED, "a newer attempt exists")

    opened(folder, config(root))
    before = list(folder.folder.iterdir())
    (root / "labels/train/000000.txt").unlink()
    with pytest.raises(Retryable, match="newer attempt"):
        folder.refresh(config(root), guard=superseded)
    assert list(folder.folder.iterdir()) == before
    opened(folder, config(root))
    shutil.copy(next(folder.folder.iterdir()), folder.folder / "theirs.labels")
    with pytest.raises(Retryable, match="newer attempt"):
        folder.refresh(config(root), guard=superseded)
    assert (folder.folder / "theirs.labels").exists()


def test_what_a_crashed_writer_left_is_deleted(root: Path, folder: LabelFolder) -> None:
    folder.folder.mkdir(parents=True)
    (folder.folder / ".abc.labels.0123abcd.tmp").write_bytes(b"half")
    opened(folder, config(root))
    assert [file.suffix for file in folder.folder.iterdir()] == [".labels"]


def test_a_volume_that_cannot_be_written_ends_the_attempt_with_a_remedy(root: Path, tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file where the job's folder should be")
    with pytest.raises(Exception, match=r"I/O error at .*results.*; check the checkpoints volume"):
        opened(LabelFolder(tmp_path / "results" / "labels"), config(root))


def test_a_data_set_that_moved_is_still_fresh(root: Path, folder: LabelFolder, tmp_path: Path) -> None:
    key = folder.refresh(config(root))
    moved = root.rename(tmp_path / "elsewhere")
    assert folder.refresh(config(moved)) == key
    assert folder.open(config(moved), key).train[0]["im_file"] == str(moved / "images/train/000000.jpg")


def test_a_file_of_another_volume_is_told(root: Path, folder: LabelFolder, tmp_path: Path) -> None:
    key = folder.refresh(config(root))
    with pytest.raises(Exception, match="all nodes must see the same checkpoints volume"):
        LabelFolder(tmp_path / "another").open(config(root), key)


def test_an_invalid_label_leaves_no_file(root: Path, folder: LabelFolder) -> None:
    (root / "labels/train/000007.txt").write_text("10 .5 .5 .1 .1\n")
    with pytest.raises(Permanent, match=r"000007\.txt line 1: class 10 is out of range") as refused:
        opened(folder, config(root))
    assert refused.value.reason is Reason.DATASET_INVALID
    assert not folder.folder.exists()


_READ = """
import sys
from pathlib import Path
from tests.support.models import load_dataset
from distill_api.spec.training import Training
from tests.support.models import train_data
root = Path(sys.argv[1])
data = train_data(load_dataset(root / "digits.yaml", root, "detect"), Training(imgsz=64, batch=4, workers=0))
next(data.batches(0, 1))
image, original, _ = data.dataset.load_image(3)
print(len(data.dataset), data.dataset.im_files[3], original)
"""


def test_on_a_read_only_volume_an_image_without_end_marker_is_used(make_digits: Any) -> None:
    """Ultralytics would leave it out there. The reader is no root, who may write everywhere."""
    with tempfile.TemporaryDirectory() as place:
        root = Path(shutil.copytree(make_digits("detect"), Path(place) / "data"))
        image = root / "images/train/000003.jpg"
        image.write_bytes(image.read_bytes()[:-2])
        for path in (root, *root.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        Path(place).chmod(0o755)
        somebody = {"user": 65532, "group": 65532, "extra_groups": []} if os.geteuid() == 0 else {}
        output = subprocess.run(
            [sys.executable, "-c", _READ, root], env=environment(TMPDIR="/tmp", HOME="/tmp"), capture_output=True,
            text=True, check=False, **somebody,
        )  # fmt: skip
        for path in (root, *root.rglob("*")):
            path.chmod(0o755)
    assert output.stdout == f"24 {image} (96, 96)\n", output.stderr


def test_sixteen_threads_look_at_files_and_keep_their_order(tmp_path: Path, monkeypatch: Any) -> None:
    paths = [str(tmp_path / f"{number}.txt") for number in range(100)]
    for number, path in enumerate(paths[::2]):  # the others do not exist
        Path(path).write_bytes(b"x" * number)
    expected = [(number // 2, Path(path).stat().st_mtime_ns) if not number % 2 else (-1, -1) for number, path in
                enumerate(paths)]  # fmt: skip
    together = threading.Barrier(listing._THREADS)

    def slow_stat(path: str) -> os.stat_result:
        if path in paths[: 3 * listing._THREADS : 3]:  # the first of each share of the first round
            together.wait(timeout=60)
        return real(path)

    real = os.stat
    monkeypatch.setattr(listing, "_SHARE", 3)
    monkeypatch.setattr(listing.os, "stat", slow_stat)
    counts: list[int] = []
    assert listing._stats(paths, counts.append).tolist() == [list(pair) for pair in expected]
    assert counts == [0, 48, 96]
