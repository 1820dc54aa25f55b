"""A wrong data set is refused in one line that says what is wrong and where; a right one is left untouched."""

import logging
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from ultralytics.utils import LOGGER

from distill_api.errors import Permanent
from distill_api.reasons import Reason
from distill_api.spec.training import Training
from distill_trainer.data import TrainData
from tests.support.models import load_dataset, train_data

Edit = Callable[[Path, dict[str, Any]], None]


def remove(key: str) -> Edit:
    return lambda _, config: config.pop(key)


def put(**values: Any) -> Edit:
    return lambda _, config: config.update(values)


def write(file: str, text: str) -> Edit:
    return lambda root, _: (root / file).write_text(text) and None


def delete(folder: str) -> Edit:
    return lambda root, _: shutil.rmtree(root / folder)


def empty(folder: str) -> Edit:
    return lambda root, _: [file.unlink() for file in (root / folder).iterdir()] and None


@pytest.fixture
def root(make_digits: Any, tmp_path: Path) -> Path:
    return Path(shutil.copytree(make_digits("pose"), tmp_path / "volume" / "digits"))


def load(root: Path, edit: Edit, task: str = "detect") -> Any:
    config = yaml.safe_load((root / "digits.yaml").read_text())
    edit(root, config)
    if (root / "digits.yaml").exists():
        (root / "digits.yaml").write_text(yaml.safe_dump(config))
    return load_dataset(root / "digits.yaml", root.parent, task)


@pytest.mark.parametrize(
    ("edit", "task", "words"),
    [
        (lambda root, _: (root / "digits.yaml").unlink(), "detect", ["digits.yaml does not exist"]),
        (remove("train"), "detect", ["has no train", "add train"]),
        (remove("val"), "detect", ["has no val", "add val"]),
        (remove("names"), "detect", ["has no class names"]),
        (put(nc=9), "detect", ["nc is 9 but names has 10"]),
        (put(names={0: "a", 2: "b"}), "detect", ["numbered 0 to 1"]),
        (put(path="nowhere"), "detect", ["path nowhere does not exist"]),
        (put(path="/"), "detect", ["outside the data volume"]),
        (put(val="../../val"), "detect", ["val is", "outside the data volume"]),
        (put(train="/etc"), "detect", ["train is /etc, which is outside the data volume"]),
        (put(train="images/no"), "detect", ["images/no, which does not exist"]),
        (delete("images/val"), "detect", ["images/val, which does not exist"]),
        (empty("images/val"), "detect", ["no val images in", "images/val"]),
        (empty("images/train"), "detect", ["no train images in", "images/train"]),
        (write("labels/val/000001.txt", "1 .5 .5 .1 .1\n12 .5 .5 .1 .1\n"), "detect",
         ["labels/val/000001.txt line 2: class 12 is out of range", "0 to 9"]),
        (write("labels/train/000000.txt", "-1 .5 .5 .1 .1\n"), "detect", ["000000.txt line 1: class -1"]),
        (write("labels/train/000000.txt", "\nseven .5 .5 .1 .1\n"), "detect",
         ["000000.txt line 2: class 'seven' is not a number"]),
        (remove("kpt_shape"), "pose", ["needs kpt_shape"]),
        (put(kpt_shape=[5, 4]), "pose", ["needs kpt_shape", "[5, 4]"]),
        (put(flip_idx=[0, 1]), "pose", ["must have each of 0 to 4 once"]),
        (put(kpt_oks_sigmas=[0.1]), "pose", ["kpt_oks_sigmas must be 5"]),
        (put(channels="three"), "detect", ["must be a positive integer"]),
    ],
)  # fmt: skip
def test_refused_in_one_line(root: Path, edit: Edit, task: str, words: list[str]) -> None:
    with pytest.raises(Permanent) as refused:
        load(root, edit, task)
    assert refused.value.reason is Reason.DATASET_INVALID
    assert "\n" not in refused.value.message
    for word in words:
        assert word in refused.value.message


@pytest.mark.parametrize("text", ["names: [a, b", "- a\n- b\n"])
def test_what_is_no_yaml_mapping_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(Permanent, match=r"data\.yaml (is not valid|must be a) YAML"):
        load_dataset(tmp_path / "data.yaml", tmp_path, "detect")


def test_a_missing_data_set_is_never_downloaded(root: Path) -> None:
    script = put(train="images/elsewhere", download=f"open({str(root / 'ran')!r}, 'w')")
    with pytest.raises(Permanent, match="does not exist"):
        load(root, script)
    assert not (root / "ran").exists()


@pytest.mark.parametrize("path", [None, ".", "digits", "images/.."])
def test_the_root_is_found_beside_the_yaml_or_on_the_volume(root: Path, path: str | None) -> None:
    info = load(root, put(path=path))
    assert (len(info.train), len(info.val)) == (24, 8)
    assert info.train.images[0] == str(root / "images/train/000000.jpg")


def test_a_list_file_names_images_relative_to_itself(root: Path) -> None:
    (root / "some.txt").write_text("./images/train/000003.jpg\nimages/train/000001.jpg\n\n")
    info = load(root, put(train="some.txt"))
    assert [Path(image).name for image in info.train.images] == ["000001.jpg", "000003.jpg"]


def test_names_may_be_a_list_or_a_number(root: Path) -> None:
    assert load(root, put(names=list("abcdefghij"))).names[9] == "j"
    assert load(root, lambda _, config: (config.pop("names"), config.update(nc=10))).names[9] == "class_9"


def test_the_digest_is_that_of_a_copy_elsewhere_with_other_times(root: Path, tmp_path: Path) -> None:
    first = load(root, put())
    moved = Path(shutil.copytree(root, tmp_path / "other" / "digits", copy_function=shutil.copyfile))
    assert load(moved, put()).digest == first.digest


@pytest.mark.parametrize(
    "edit",
    [
        lambda root, _: (root / "images/train/000005.jpg").unlink(),
        lambda root, _: append(root / "images/train/000005.jpg", b"behind the end marker\xff\xd9"),
        lambda root, _: append(root / "labels/val/000002.txt", b"3 .5 .5 .1 .1" + b" .5 .5 2" * 5 + b"\n"),
        lambda root, _: (root / "labels/train/000000.txt").unlink(),
        lambda _, config: config["names"].update({3: "drei"}),
        put(flip_idx=[1, 0, 2, 3, 4]),
    ],
    ids=["an image less", "another image", "another label", "a label file less", "another name", "another order"],
)
def test_the_digest_changes_with_the_data(root: Path, edit: Edit) -> None:
    before = load(root, put()).digest
    assert load(root, edit).digest != before


def append(file: Path, content: bytes) -> None:
    file.write_bytes(file.read_bytes() + content)


def test_single_class_ignores_the_numbers(root: Path) -> None:
    (root / "labels/train/000000.txt").write_text("12 .5 .5 .1 .1\n")
    info = load_dataset(root / "digits.yaml", root, "detect", single_cls=True)
    assert info.names == {0: "item"}


def load_train(root: Path, task: str = "detect", **training: Any) -> TrainData:
    info = load_dataset(root / "digits.yaml", root, task, **training)
    return train_data(info, Training(imgsz=64, batch=4, workers=0, **training))


def state(root: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder with its size and time of change; making and deleting a file changes its folder's."""
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in [root, *root.rglob("*")]}


def pixels(image: Path) -> Any:
    """The image as the training gets it, before augmentation."""
    return cv2.resize(cv2.imread(str(image)), (64, 64), interpolation=cv2.INTER_LINEAR)


class Planted:
    """A pickle that leaves a mark when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def test_nothing_is_written_to_or_unpickled_from_the_data_volume(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "labels" / "train.cache").write_bytes(pickle.dumps(Planted(tmp_path / "loaded")))
    before = state(root)
    LOGGER.addHandler(caplog.handler)
    monkeypatch.setattr(LOGGER, "level", logging.WARNING)
    try:
        with caplog.at_level(logging.WARNING):
            data = load_train(root)
            next(data.batches(0, 1))
    finally:
        LOGGER.removeHandler(caplog.handler)
    assert state(root) == before
    assert not (tmp_path / "loaded").exists()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("cut", [2, 200])
def test_an_image_without_end_marker_is_used_and_stays_as_it_is(
    root: Path, cut: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Ultralytics would write it anew, and drop it where it cannot."""
    image = root / "images/train/000003.jpg"
    image.write_bytes(image.read_bytes()[:-cut])
    before = state(root)
    data = load_train(root)
    assert state(root) == before
    assert data.images == 24
    assert str(image) in {label["im_file"] for label in data.dataset.labels}
    loaded, _, _ = data.dataset.load_image(3)
    assert np.array_equal(loaded, pixels(image))
    assert "corrupt" not in caplog.text


def test_an_image_that_is_too_small_is_named_itself(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = root / "images/train/000003.jpg"
    image.write_bytes(cv2.imencode(".jpg", np.zeros((5, 5, 3), np.uint8))[1].tobytes()[:-2])
    assert load_train(root).images == 23
    assert f"{image}: ignoring corrupt image/label: image size (5, 5) <10 pixels" in caplog.text


def test_arrays_beside_images_are_neither_read_nor_written(root: Path) -> None:
    """Ultralytics takes <image>.npy for the image, and deletes it if it cannot be read."""
    image = root / "images/train/000003.jpg"
    np.save(image.with_suffix(".npy"), np.zeros((64, 64, 3), np.uint8))
    (root / "images/train/000004.npy").write_bytes(b"not an array")
    before = state(root)
    data = load_train(root)
    for number in (3, 4):
        loaded, _, _ = data.dataset.load_image(number)
        assert np.array_equal(loaded, pixels(Path(data.dataset.im_files[number])))
    assert state(root) == before


def test_a_changed_label_is_seen_by_the_next_run(root: Path) -> None:
    file = root / "labels/train/000000.txt"
    before = load_train(root).dataset.labels[0]["cls"].tolist()
    file.write_text("\n".join(f"{(int(line[0]) + 1) % 10}{line[1:]}" for line in file.read_text().splitlines()))
    after = load_train(root).dataset.labels[0]["cls"].tolist()
    assert sorted(after) == sorted([[(label + 1) % 10] for (label,) in before])


def test_the_whole_scan_names_file_and_line(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong line that the sample of load_dataset missed."""
    monkeypatch.setattr("distill_trainer.data.labels.scan.LABELS_CHECKED", 1)
    (root / "labels/train/000007.txt").write_text("10 .5 .5 .1 .1\n")
    with pytest.raises(Permanent, match=r"000007\.txt line 1: class 10 is out of range"):
        load_train(root)


def test_training_images_without_any_label_are_refused(root: Path) -> None:
    shutil.rmtree(root / "labels/train")
    with pytest.raises(Permanent, match=r"no training image has a label file.*labels/train/000000\.txt"):
        load_train(root)


def test_unusable_images_are_told_by_the_first(root: Path) -> None:
    for image in (root / "images/train").iterdir():
        image.write_bytes(b"not a picture")
    with pytest.raises(Permanent, match=r"none of 24 images can be used for pose; the first one: .*000000\.jpg"):
        load_train(root, "pose")


def test_pose_labels_also_train_boxes(root: Path) -> None:
    assert load_train(root, "detect").images == 24


def test_boxes_cannot_train_masks(make_digits: Any) -> None:
    with pytest.raises(Permanent, match=r"line 1: 5 columns, but a label for segment has 7 or more: a class and the"):
        load_train(make_digits("detect"), "segment")


def test_an_unreadable_image_is_left_out_with_a_warning(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "images/train/000002.jpg").write_bytes(b"not a picture")
    assert load_train(root).images == 23
    assert "000002.jpg" in caplog.text
    assert "the file is damaged, or is no image of a known format" in caplog.text
    assert "No module named" not in caplog.text


def test_fraction_takes_the_first_images(root: Path) -> None:
    assert load_train(root, fraction=0.25).images == 6


def test_images_without_labels_are_found_and_part_of_the_digest(root: Path) -> None:
    plain = load_dataset(root / "digits.yaml", root, "detect")
    more = root / "more"
    more.mkdir()
    for image in plain.train.images[:3]:
        shutil.copy(image, more)
    info = load_dataset(root / "digits.yaml", root, "detect", unlabelled="more")
    assert info.unlabelled is not None
    assert [Path(image).parent for image in info.unlabelled.images] == [more] * 3
    assert info.digest != plain.digest
    with pytest.raises(Permanent, match="which the student is judged; take them out"):
        load_dataset(
            root / "digits.yaml", root, "detect", unlabelled=os.path.relpath(Path(plain.val.images[0]).parent, root)
        )
    with pytest.raises(Permanent, match="outside the data volume"):
        load_dataset(root / "digits.yaml", root, "detect", unlabelled="../elsewhere")
