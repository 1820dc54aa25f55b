"""Reads and checks a data set's YAML file. Never downloads anything and ignores its `download` key."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml
from ultralytics.data.utils import FORMATS_HELP_MSG, IMG_FORMATS, img2label_paths

from distill_api.errors import Permanent
from distill_api.reading.mistakes import nearest
from distill_api.reading.yamltext import problem
from distill_api.reasons import Reason
from distill_trainer.data.labels import LabelRules, check_label_files

LABELS_CHECKED = 256
"""Label files per split that `load_dataset` checks. All are checked when the data set is opened."""

_MAX_LISTED = 8
"""Most names that an error message lists."""
_KEYS = frozenset({"path", "train", "val", "validation", "test", "names", "nc", "download"})


@dataclass(frozen=True)
class DatasetInfo:
    """A data set's checked YAML file and its images."""

    config: Path
    task: str
    names: dict[int, str]
    channels: int
    train: tuple[str, ...] = field(repr=False)
    """Absolute paths of the training images, sorted."""
    val: tuple[str, ...] = field(repr=False)
    """Absolute paths of the validation images, sorted."""
    kpt_shape: tuple[int, int] | None
    """(keypoints, values per keypoint), or None. Tasks other than pose use only the boxes of such labels."""
    flip_idx: tuple[int, ...]
    """New index of each keypoint after a horizontal flip (pose); empty: no flips."""
    kpt_oks_sigmas: tuple[float, ...]
    """OKS tolerance of each keypoint (pose); empty: Ultralytics' defaults."""
    digest: str
    """SHA-256 of names, keypoints and image paths. Equal digests mean equal data order."""
    unlabelled: tuple[str, ...] = field(default=(), repr=False)
    """Absolute paths of the images without labels, sorted."""

    @property
    def nc(self) -> int:
        """Number of classes."""
        return len(self.names)

    def as_ultralytics(self) -> dict[str, Any]:
        """The `data` dictionary of Ultralytics' data sets, validators and heads."""
        data: dict[str, Any] = {"names": dict(self.names), "nc": self.nc, "channels": self.channels}
        if self.kpt_shape is not None:
            data["kpt_shape"] = list(self.kpt_shape)
            data["flip_idx"] = list(self.flip_idx)
            if self.kpt_oks_sigmas:
                data["kpt_oks_sigmas"] = list(self.kpt_oks_sigmas)
        return data


def _invalid(message: str) -> Permanent:
    return Permanent(Reason.DATASET_INVALID, message)


def _read(config: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(config.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        found = sorted(file.name for pattern in ("*.yaml", "*.yml") for file in config.parent.glob(pattern))
        hint = f"; {config.parent} has {', '.join(found[:_MAX_LISTED])}" if found else ""
        raise _invalid(
            f"data set {config} does not exist; dataset.config must be a path relative to the data volume{hint}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise _invalid(f"data set {config} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise _invalid(f"data set {config} is not valid YAML: {problem(error)}") from None
    if content is None:
        raise _invalid(f"data set {config} is empty; it needs train, val and names")
    if not isinstance(content, dict):
        raise _invalid(f"data set {config} must be a YAML mapping with train, val and names")
    return content


def _names(content: dict[str, Any], config: Path) -> dict[int, str]:
    names, count = content.get("names"), content.get("nc")
    if names is None:
        if not isinstance(count, int) or count < 1:
            raise _invalid(f"data set {config} has no class names; add names: {{0: …, 1: …}}")
        return {number: f"class_{number}" for number in range(count)}
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names:
        raise _invalid(f"data set {config}: names must be a list, or a mapping from numbers to names")
    if set(names) != set(range(len(names))):
        raise _invalid(f"data set {config}: names must be numbered 0 to {len(names) - 1} without gaps")
    if count is not None and count != len(names):
        raise _invalid(f"data set {config}: nc is {count} but names has {len(names)} entries; remove nc")
    return {number: str(names[number]) for number in range(len(names))}


def _keypoints(content: dict[str, Any], config: Path) -> tuple[tuple[int, int], tuple[int, ...]]:
    shape = content.get("kpt_shape")
    if (
        not isinstance(shape, list)
        or len(shape) != 2
        or not all(isinstance(value, int) for value in shape)
        or shape[0] < 1
        or shape[1] not in (2, 3)
    ):
        raise _invalid(f"data set {config}: kpt_shape is {shape}; pose needs kpt_shape: [keypoints, 2 or 3]")
    flip = content.get("flip_idx") or []
    if flip and sorted(flip) != list(range(shape[0])):
        raise _invalid(f"data set {config}: flip_idx is {flip}; it must have each of 0 to {shape[0] - 1} once")
    return (shape[0], shape[1]), tuple(flip)


def _inside(path: Path, data_root: Path, config: Path, key: str) -> Path:
    """`path` without `..`. Raises Permanent if it is outside the data volume. Symbolic links are not resolved."""
    normal = Path(os.path.normpath(path))
    if not normal.is_relative_to(os.path.abspath(data_root)):
        raise _invalid(
            f"data set {config}: {key} is {path}, which is outside the data volume {data_root};"
            " move the files to the data volume and use a path relative to the YAML file"
        )
    return normal


def _root(content: dict[str, Any], config: Path, data_root: Path) -> Path:
    path = content.get("path")
    if not path:
        return config.parent
    candidates = [config.parent / str(path), data_root / str(path)]
    existing = [candidate for candidate in candidates if candidate.is_dir()]
    if not existing:
        raise _invalid(f"data set {config}: path {path} does not exist in {config.parent} or in {data_root}")
    return _inside(existing[0], data_root, config, "path")


def _listed(file: Path) -> Iterator[str]:
    """Images of a list file: one path per line, relative to the folder of the list."""
    for line in file.read_text(encoding="utf-8-sig").splitlines():
        if line.strip():
            yield os.path.normpath(file.parent / line.strip())


def _images(entries: Iterable[Path], config: Path, split: str, hint: str) -> tuple[str, ...]:
    found: list[str] = []
    for entry in entries:
        if entry.is_dir():
            found += glob.iglob(str(Path(glob.escape(str(entry))) / "**" / "*.*"), recursive=True)
        elif entry.is_file():
            found += _listed(entry)
        else:
            raise _invalid(f"data set {config}: {split} is {entry}, which does not exist{hint}")
    images = tuple(sorted(name for name in found if name.rpartition(".")[2].lower() in IMG_FORMATS))
    if not images:
        where = ", ".join(str(entry) for entry in entries)
        raise _invalid(f"data set {config}: no {split} images in {where}. {FORMATS_HELP_MSG}")
    return images


def _split(content: dict[str, Any], split: str, root: Path, config: Path, data_root: Path) -> tuple[str, ...]:
    value = content.get(split)
    if value is None and split == "val":
        value = content.get("validation")
    if not value:
        similar = [str(key) for key in nearest(split, map(str, content)) if key not in _KEYS]
        hint = f"; it has {' and '.join(similar)}: did you mean {split}?" if similar else ""
        raise _invalid(f"data set {config} has no {split}; add {split}: <folder of images>{hint}")
    entries = value if isinstance(value, list) else [value]
    if not all(isinstance(entry, str) for entry in entries):
        raise _invalid(f"data set {config}: {split} must be a folder of images, a list file, or a list of these")
    hint = "; the download key is ignored, so copy the images there first" if content.get("download") else ""
    images = _images([_inside(root / entry, data_root, config, split) for entry in entries], config, split, hint)
    for image in images:
        _inside(Path(image), data_root, config, split)
    return images


def _unlabelled(place: str, val: tuple[str, ...], config: Path, data_root: Path) -> tuple[str, ...]:
    images = _images([_inside(data_root / place, data_root, config, "unlabelled")], config, "unlabelled", "")
    for image in images:
        _inside(Path(image), data_root, config, "unlabelled")
    judged = sorted(set(images) & set(val))
    if judged:
        raise _invalid(
            f"dataset.unlabelled {place} has {len(judged)} of the validation images, such as {judged[0]}, on which the"
            " student is judged; take them out"
        )
    return images


def _sample(files: tuple[str, ...]) -> list[str]:
    return list(files[:: max(1, len(files) // LABELS_CHECKED)])


def load_dataset(
    config_path: Path, data_root: Path, task: str, *, single_cls: bool = False, unlabelled: str | None = None
) -> DatasetInfo:
    """Read and check a data set in YOLO format.

    `path` in the YAML file is relative to the YAML file's folder or to `data_root`, and defaults to that folder. All
    images must be in `data_root`. `unlabelled`: a folder or list file there, of images whose
    labels are not read. A sample of the label files is checked, spread evenly over each split.
    Raises Permanent(DatasetInvalid) with one line that says what is wrong, where, and what to do.
    """
    config = Path(os.path.abspath(config_path))
    data_root = Path(os.path.abspath(data_root))
    content = _read(config)
    names = _names(content, config)
    has_keypoints = task == "pose" or content.get("kpt_shape") is not None
    kpt_shape, flip_idx = _keypoints(content, config) if has_keypoints else (None, ())
    sigmas = tuple(float(value) for value in content.get("kpt_oks_sigmas") or ())
    if kpt_shape is not None and sigmas and (len(sigmas) != kpt_shape[0] or min(sigmas) <= 0):
        raise _invalid(f"data set {config}: kpt_oks_sigmas must be {kpt_shape[0]} positive numbers")
    channels = content.get("channels", 3)
    if not isinstance(channels, int) or channels < 1:
        raise _invalid(f"data set {config}: channels is {channels}; it must be a positive integer")
    root = _root(content, config, data_root)
    splits = {split: _split(content, split, root, config, data_root) for split in ("train", "val")}
    for images in splits.values():
        check_label_files(img2label_paths(_sample(images)), LabelRules(task, len(names), kpt_shape, single_cls))
    if single_cls:
        names = {0: "item"}
    digest = sha256(repr((task, names, channels, kpt_shape, flip_idx, sigmas)).encode())
    for split, images in splits.items():
        digest.update(f"\0{split}\0".encode())
        digest.update("\0".join(os.path.relpath(image, config.parent) for image in images).encode())
    more = _unlabelled(unlabelled, splits["val"], config, data_root) if unlabelled is not None else ()
    if more:
        digest.update("\0".join(["\0unlabelled\0", *(os.path.relpath(image, data_root) for image in more)]).encode())
    return DatasetInfo(
        config=config,
        task=task,
        names=names,
        channels=channels,
        train=splits["train"],
        val=splits["val"],
        kpt_shape=kpt_shape,
        flip_idx=flip_idx,
        kpt_oks_sigmas=sigmas,
        digest=digest.hexdigest(),
        unlabelled=more,
    )
