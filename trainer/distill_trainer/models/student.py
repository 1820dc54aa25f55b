"""Builds the student."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn import tasks
from yaml import YAMLError

from distill_api.errors import Permanent
from distill_api.reading.mistakes import nearest
from distill_api.reasons import Reason
from distill_trainer.models import pair
from distill_trainer.models.loading import find_model_file, load_checkpoint
from distill_trainer.models.loading.architecture import BadArchitecture, check_architecture

_MODEL_CLASSES: Mapping[str, type[nn.Module]] = {
    "detect": tasks.DetectionModel,
    "segment": tasks.SegmentationModel,
    "pose": tasks.PoseModel,
    "obb": tasks.OBBModel,
}
_SCALED = re.compile(r"yolov?\d+")
_FROZEN_ALWAYS = ".dfl"
"""The fixed integration weights of a distribution focal loss head, which Ultralytics never trains either."""


def student_source(
    root: Path | None, name: str, *, trust_pickle: bool = False
) -> tuple[dict[str, Any], nn.Module | None, str]:
    """A student's architecture, its pretrained model (None for a .yaml file), and its task.

    A .yaml file is searched for on the models volume, then in Ultralytics' architectures. Never downloads.
    Raises Permanent.
    """
    if name.endswith(".pt"):
        weights: Any = load_checkpoint(find_model_file(_volume(root, name), name), trust_pickle=trust_pickle)
        pair.check_trainable(pair.facts(weights, name))
        return dict(weights.yaml), weights, str(weights.task)
    architecture = _architecture(root, name)
    return architecture, None, _task(architecture, name)


def build_student(
    source: tuple[dict[str, Any], nn.Module | None, str],
    dataset: Any,
    arguments: Any,
    seed: int,
) -> Any:
    """Build a student for the classes and channels of `dataset` (names, nc, channels, kpt_shape).

    The same seed gives the same initial weights on every rank. Pretrained class weights are matched by class name.
    Raises Permanent.
    """
    architecture, weights, task = source
    extra = {"data_kpt_shape": dataset.kpt_shape} if task == "pose" else {}
    torch.manual_seed(seed)
    try:
        check_architecture(architecture)
        student: Any = _MODEL_CLASSES[task](architecture, nc=dataset.nc, ch=dataset.channels, verbose=False, **extra)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        why = str(error) if isinstance(error, BadArchitecture) else repr(error)
        raise Permanent(
            Reason.MODEL_INVALID, f"cannot build a model from the architecture {arguments.model}: {why}"
        ) from error
    student.names = dict(dataset.names)
    if weights is not None and arguments.pretrained:
        student.load(weights, verbose=False)
    student.nc = dataset.nc
    student.args = arguments
    student.task = task
    if task == "pose":
        student.kpt_shape = dataset.kpt_shape
        student.kpt_names = {
            number: [str(point) for point in range(dataset.kpt_shape[0])] for number in range(dataset.nc)
        }
        student.kpt_oks_sigmas = list(dataset.kpt_oks_sigmas) or None
    student.set_head_attr(max_det=arguments.max_det)
    freeze(student, arguments.freeze)
    return student


def seed_after_first_weights(student: Any) -> None:
    """Leave torch's generator where a build of this student leaves it, whether or not a .pt file has replaced the first
    weights: Ultralytics draws the projector there.
    """
    torch.manual_seed(student.args.seed)
    type(student)(dict(student.yaml), nc=student.nc, verbose=False)


def freeze(student: Any, layers: int) -> None:
    """Freeze the first `layers` layers. Raises Permanent if no trainable parameter is left."""
    frozen = tuple(f"model.{layer}." for layer in range(layers))
    for name, parameter in student.named_parameters():
        parameter.requires_grad_(not name.startswith(frozen) and _FROZEN_ALWAYS not in name)
    if not any(parameter.requires_grad for parameter in student.parameters()):
        raise Permanent(
            Reason.CONFIG_INVALID,
            f"training.freeze {layers} freezes the whole student, which has {len(student.model)} layers; lower"
            " training.freeze",
        )


def train_mode(student: Any, frozen_layers: int) -> None:
    """Set training mode, except for BatchNorm in frozen layers, whose running statistics must not change."""
    student.train()
    for layer in student.model[:frozen_layers]:
        for module in layer.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()


def set_class_weights(student: Any, classes: NDArray[Any], power: float) -> None:
    """Weight classes by their inverse frequency to the given power, with mean 1, as Ultralytics does for cls_pw > 0.

    `classes`: the class of every box of the training images.
    """
    counts = np.bincount(classes.astype(int), minlength=student.nc).astype(np.float32)
    if power == 0 or not counts.any():
        return
    rules: Any = SimpleNamespace(args=SimpleNamespace(cls_pw=power))
    weights = DetectionTrainer.compute_class_weights(rules, counts)
    student.class_weights = torch.from_numpy(weights / weights.mean())


def neck_channels(model: Any) -> tuple[int, ...]:
    """Channels of the head's input features, by level."""
    return tuple(_first_convolution(branch).in_channels for branch in model.model[-1].cv3)


def grid_size(model: Any) -> int:
    """Image sides must be multiples of this: the largest stride, at least 32, as in Ultralytics."""
    return max(int(model.stride.max()), 32)


def _first_convolution(module: nn.Module) -> nn.Conv2d:
    return next(part for part in module.modules() if isinstance(part, nn.Conv2d))


def _volume(root: Path | None, name: str) -> Path:
    if root is None:
        raise Permanent(
            Reason.MODEL_NOT_FOUND, f"{name} is a .pt file, but the job has no models volume; set volumes.models"
        )
    return root


def _architecture(root: Path | None, name: str) -> dict[str, Any]:
    on_volume = None if root is None else root / name
    try:
        return dict(tasks.yaml_model_load(on_volume if on_volume is not None and on_volume.is_file() else name))
    except FileNotFoundError as error:
        raise Permanent(
            Reason.MODEL_NOT_FOUND,
            f"{name} is neither a file on the models volume nor an Ultralytics architecture such as "
            f"{' or '.join(nearest(name, _architectures())) or 'yolo26n.yaml'}",
        ) from error
    except (ValueError, KeyError, TypeError, OSError, YAMLError) as error:
        raise Permanent(Reason.MODEL_INVALID, f"{name} is not a valid architecture: {error}") from error


def _architectures() -> list[str]:
    """Names of Ultralytics' architectures, with all scales."""
    folder = Path(tasks.__file__).parents[1] / "cfg" / "models"
    return [
        _SCALED.sub(rf"\g<0>{scale}", file.name, count=1) for file in folder.glob("*/yolo*.yaml") for scale in "nsmlx"
    ]


def _task(architecture: dict[str, Any], name: str) -> str:
    task = str(tasks.guess_model_task(architecture))
    try:
        head = str(architecture["head"][-1][2])
    except (KeyError, IndexError, TypeError):
        return task  # build_student reports the error
    if task not in _MODEL_CLASSES or head not in pair.HEADS:
        raise Permanent(
            Reason.MODEL_INVALID,
            f"{name} has a {head} head; students are detect, segment, pose or obb models of YOLOv5u, v8, v9, v10, 11, "
            "12 or 26",
        )
    return task
