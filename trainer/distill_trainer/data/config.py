"""Reads and checks a data set's YAML file. Never downloads anything and ignores its `download` key."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from distill_api.errors import Permanent
from distill_api.reading.mistakes import nearest
from distill_api.reading.yamltext import problem
from distill_api.reasons import Reason
from distill_trainer.data.labels.table import LabelTable
from distill_trainer.data.node_cache import NodeCache

_MAX_LISTED = 8
"""Most names that an error message lists."""
_KEYS = frozenset({"path", "train", "val", "validation", "test", "names", "nc", "download"})


@dataclass(frozen=True)
class DatasetConfig:
    """A data set's checked YAML file, with the job's settings that decide which images and labels are used."""

    file: Path
    root: str
    """Absolute path of the data volume."""
    task: str
    names: Mapping[int, str]
    channels: int
    sources: Mapping[str, tuple[Path, ...]]
    """Folders of images and list files by split: train, val, and unlabelled if the job has such images."""
    kpt_shape: tuple[int, int] | None
    """(keypoints, values per keypoint), or None. Tasks other than pose use only the boxes of such labels."""
    flip_idx: tuple[int, ...]
    """New index of each keypoint after a horizontal flip (pose); empty: no flips."""
    kpt_oks_sigmas: tuple[float, ...]
    """OKS tolerance of each keypoint (pose); empty: Ultralytics' defaults."""
    single_cls: bool
    fraction: float
    """Fraction of the training images that is used."""

    @property
    def nc(self) -> int:
        """Number of classes."""
        return len(self.names)

    @property
    def identity(self) -> tuple[object, ...]:
        """All that decides, besides the files, what the data set is."""
        meaning = self.task, sorted(self.names.items()), self.channels, self.kpt_shape, self.flip_idx
        return *meaning, self.kpt_oks_sigmas, self.single_cls, self.fraction

    def as_ultralytics(self) -> dict[str, Any]:
        """The `data` dictionary of Ultralytics' data sets, validators and heads."""
        data: dict[str, Any] = {"names": dict(self.names), "nc": self.nc, "channels": self.channels}
        if self.kpt_shape is not None:
            data["kpt_shape"] = list(self.kpt_shape)
            data["flip_idx"] = list(self.flip_idx)
            if self.kpt_oks_sigmas:
                data["kpt_oks_sigmas"] = list(self.kpt_oks_sigmas)
        return data

    def outside(self, split: str, path: object) -> Permanent:
        """The error for a path of a split that is not on the data volume."""
        return _outside(self.file, split, path, self.root)


@dataclass(frozen=True)
class DatasetInfo(DatasetConfig):
    """A data set with its images and checked labels."""

    train: LabelTable
    val: LabelTable
    unlabelled: LabelTable | None
    """The images without labels; None if the job has none."""
    digest: str
    """SHA-256 of names, keypoints, images (paths, sizes in bytes and in pixels) and contents of labels."""
    cache: NodeCache | None = None
    """Copies of the images on this node, if the job wants them."""

    def with_cache(self, folder: Path, capacity: int) -> DatasetInfo:
        """The data set with copies of its images in this folder, of at most `capacity` bytes. Raises OSError."""
        tables = [self.train, self.val, *([self.unlabelled] if self.unlabelled is not None else [])]
        return replace(self, cache=NodeCache(folder, capacity, tables))


def invalid(message: str) -> Permanent:
    """The error of a data set that cannot be used."""
    return Permanent(Reason.DATASET_INVALID, message)


def _outside(config: Path, key: str, path: object, root: object) -> Permanent:
    return invalid(
        f"data set {config}: {key} is {path}, which is outside the data volume {root};"
        " move the files to the data volume and use a path relative to the YAML file"
    )


def _read(config: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(config.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        found = sorted(file.name for pattern in ("*.yaml", "*.yml") for file in config.parent.glob(pattern))
        hint = f"; {config.parent} has {', '.join(found[:_MAX_LISTED])}" if found else ""
        raise invalid(
            f"data set {config} does not exist; dataset.config must be a path relative to the data volume{hint}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise invalid(f"data set {config} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise invalid(f"data set {config} is not valid YAML: {problem(error)}") from None
    if content is None:
        raise invalid(f"data set {config} is empty; it needs train, val and names")
    if not isinstance(content, dict):
        raise invalid(f"data set {config} must be a YAML mapping with train, val and names")
    return content


def _names(content: dict[str, Any], config: Path) -> dict[int, str]:
    names, count = content.get("names"), content.get("nc")
    if names is None:
        if not isinstance(count, int) or count < 1:
            raise invalid(f"data set {config} has no class names; add names: {{0: …, 1: …}}")
        return {number: f"class_{number}" for number in range(count)}
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names:
        raise invalid(f"data set {config}: names must be a list, or a mapping from numbers to names")
    if set(names) != set(range(len(names))):
        raise invalid(f"data set {config}: names must be numbered 0 to {len(names) - 1} without gaps")
    if count is not None and count != len(names):
        raise invalid(f"data set {config}: nc is {count} but names has {len(names)} entries; remove nc")
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
        raise invalid(f"data set {config}: kpt_shape is {shape}; pose needs kpt_shape: [keypoints, 2 or 3]")
    flip = content.get("flip_idx") or []
    if flip and sorted(flip) != list(range(shape[0])):
        raise invalid(f"data set {config}: flip_idx is {flip}; it must have each of 0 to {shape[0] - 1} once")
    return (shape[0], shape[1]), tuple(flip)


def _inside(path: Path, data_root: Path, config: Path, key: str) -> Path:
    """`path` without `..`. Raises Permanent if it is outside the data volume. Symbolic links are not resolved."""
    normal = Path(os.path.normpath(path))
    if not normal.is_relative_to(data_root):
        raise _outside(config, key, path, data_root)
    return normal


def _root(content: dict[str, Any], config: Path, data_root: Path) -> Path:
    path = content.get("path")
    if not path:
        return config.parent
    candidates = [config.parent / str(path), data_root / str(path)]
    existing = [candidate for candidate in candidates if candidate.is_dir()]
    if not existing:
        raise invalid(f"data set {config}: path {path} does not exist in {config.parent} or in {data_root}")
    return _inside(existing[0], data_root, config, "path")


def _sources(content: dict[str, Any], split: str, root: Path, config: Path, data_root: Path) -> tuple[Path, ...]:
    value = content.get(split)
    if value is None and split == "val":
        value = content.get("validation")
    if not value:
        similar = [str(key) for key in nearest(split, map(str, content)) if key not in _KEYS]
        hint = f"; it has {' and '.join(similar)}: did you mean {split}?" if similar else ""
        raise invalid(f"data set {config} has no {split}; add {split}: <folder of images>{hint}")
    entries = value if isinstance(value, list) else [value]
    if not all(isinstance(entry, str) for entry in entries):
        raise invalid(f"data set {config}: {split} must be a folder of images, a list file, or a list of these")
    hint = "; the download key is ignored, so copy the images there first" if content.get("download") else ""
    return tuple(_existing(root / entry, data_root, config, split, hint) for entry in entries)


def _existing(path: Path, data_root: Path, config: Path, split: str, hint: str = "") -> Path:
    normal = _inside(path, data_root, config, split)
    if not normal.exists():
        raise invalid(f"data set {config}: {split} is {normal}, which does not exist{hint}")
    return normal


def read_dataset(
    config_path: Path,
    data_root: Path,
    task: str,
    *,
    single_cls: bool = False,
    fraction: float = 1.0,
    unlabelled: str | None = None,
) -> DatasetConfig:
    """Read and check the YAML file of a data set in YOLO format. Looks for no image.

    `path` in the YAML file is relative to the YAML file's folder or to `data_root`, and defaults to that folder. All
    images must be in `data_root`. `unlabelled`: a folder or list file there, of images whose labels are not read.
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
        raise invalid(f"data set {config}: kpt_oks_sigmas must be {kpt_shape[0]} positive numbers")
    channels = content.get("channels", 3)
    if not isinstance(channels, int) or channels < 1:
        raise invalid(f"data set {config}: channels is {channels}; it must be a positive integer")
    root = _root(content, config, data_root)
    sources = {split: _sources(content, split, root, config, data_root) for split in ("train", "val")}
    if unlabelled is not None:
        sources["unlabelled"] = (_existing(data_root / unlabelled, data_root, config, "unlabelled"),)
    return DatasetConfig(
        file=config,
        root=str(data_root),
        task=task,
        names={0: "item"} if single_cls else names,
        channels=channels,
        sources=sources,
        kpt_shape=kpt_shape,
        flip_idx=flip_idx,
        kpt_oks_sigmas=sigmas,
        single_cls=single_cls,
        fraction=fraction,
    )
