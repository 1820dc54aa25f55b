"""Builds a fresh model from what a file says of one: its architecture, its names and its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn
from ultralytics.nn import tasks

from distill_trainer.models.loading.architecture import BadArchitecture, at_most, check_architecture, plain
from distill_trainer.models.loading.inert import StandIn

_PACKAGE: Final = "ultralytics.nn.tasks."
_CLASSES: Final = (
    "DetectionModel", "SegmentationModel", "PoseModel", "OBBModel", "ClassificationModel", "RTDETRDetectionModel",
    "WorldModel", "YOLOEModel", "YOLOESegModel", "SemanticSegmentationModel", "DepthModel",
)  # fmt: skip
_KEPT: Final = ("max_det", "_end2end")
"""Attributes of the head that are settings rather than what the architecture says."""
_MOST_MODULES, _DEEPEST = 100_000, 40
_ROOM: Final = 1_000_000
"""Numbers that a model may have beyond those of the file: a fused one has fewer than it is built with."""


def is_model(value: Any) -> bool:
    """Whether it stands for a model of Ultralytics."""
    return isinstance(value, StandIn) and value.full_name.startswith(_PACKAGE)


def rebuild(saved: StandIn) -> nn.Module:
    """The model that a stand-in describes, with its tensors. Raises BadArchitecture.

    Random numbers of the process are left as they are.
    """
    name = saved.full_name.removeprefix(_PACKAGE)
    if name not in _CLASSES:
        raise BadArchitecture(f"it is a {name}, which cannot be a student, a teacher or a baseline")
    architecture = plain(saved.get("yaml") or {})
    check_architecture(architecture)
    tensors = tensors_of(saved)
    channels = architecture.get("channels", architecture.get("ch", 3))
    try:
        with torch.random.fork_rng(devices=[]), at_most(2 * sum(map(Tensor.numel, tensors.values())) + _ROOM):
            model: Any = getattr(tasks, name)(architecture, ch=channels, verbose=False)
    except BadArchitecture:
        raise
    except Exception as error:
        raise BadArchitecture(f"its architecture cannot be built: {type(error).__name__}: {error}") from error
    _set_attributes(model, saved)
    _load(model, tensors)
    return model


def tensors_of(saved: StandIn) -> dict[str, Tensor]:
    """The parameters and buffers below a module, by their names in a state_dict; all finite. Raises BadArchitecture."""
    found: dict[str, Tensor] = {}
    waiting: list[tuple[str, Any, int]] = [("", saved, 0)]
    seen = 0
    while waiting:
        prefix, module, depth = waiting.pop()
        seen += 1
        if seen > _MOST_MODULES or depth > _DEEPEST:
            raise BadArchitecture("its modules are nested without end")
        given = _dictionary(module, "_parameters") | _dictionary(module, "_buffers")
        unsaved = module.get("_non_persistent_buffers_set") or ()
        found |= {
            f"{prefix}{name}": tensor
            for name, tensor in given.items()
            if isinstance(tensor, Tensor) and name not in unsaved
        }
        waiting += [
            (f"{prefix}{name}.", part, depth + 1)
            for name, part in _dictionary(module, "_modules").items()
            if isinstance(part, StandIn)
        ]
    for name, tensor in found.items():
        if not torch.isfinite(tensor).all():
            raise BadArchitecture(f"{name} has values that are no finite numbers, as after a training that diverged")
    return found


def _dictionary(saved: StandIn, name: str) -> dict[Any, Any]:
    """An attribute that is a dictionary in every module; an empty one if it is something else."""
    value = saved.get(name)
    return dict(value) if isinstance(value, Mapping) else {}


def _set_attributes(model: Any, saved: StandIn) -> None:
    names = plain(saved.get("names") or {})
    listed = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(listed, dict) or not all(isinstance(key, int) for key in listed):
        raise BadArchitecture("its class names are neither a list nor numbered")
    if listed:
        model.names = {key: str(value) for key, value in listed.items()}
    if isinstance(task := saved.get("task"), str):
        model.task = task
    for attribute in ("kpt_shape", "kpt_names"):
        if (value := saved.get(attribute)) is not None:
            setattr(model, attribute, plain(value))
    head = _head(saved)
    for attribute in _KEPT:
        if head is not None and isinstance(value := head.get(attribute), int):
            setattr(model.model[-1], attribute, value)


def _head(saved: StandIn) -> StandIn | None:
    layers = _dictionary(saved, "_modules").get("model")
    parts = list(_dictionary(layers, "_modules").values()) if isinstance(layers, StandIn) else []
    return parts[-1] if parts and isinstance(parts[-1], StandIn) else None


def _load(model: Any, tensors: Mapping[str, Tensor]) -> None:
    """Copy the tensors into the model, which is fused first if they are those of a fused one."""
    if _fits(model, tensors) is not None:
        names = {name.rpartition(".")[0] for name in tensors}
        if not any(name.endswith(".bn") for name in names):
            model.fuse(verbose=False)
    if (why := _fits(model, tensors)) is not None:
        raise BadArchitecture(why)
    model.load_state_dict(dict(tensors), strict=False)


def _fits(model: Any, tensors: Mapping[str, Tensor]) -> str | None:
    """Why the tensors are not this model's; None if they are."""
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items() if not _counts_batches(name)}
    given = {name: tensor.shape for name, tensor in tensors.items() if not _counts_batches(name)}
    for name in [*wanted, *given]:
        ours, theirs = wanted.get(name), given.get(name)
        if ours != theirs:
            shapes = [list(shape) if shape is not None else "nothing" for shape in (theirs, ours)]
            return f"its architecture is not that of its tensors: {name} is {shapes[0]}, and would be {shapes[1]}"
    return None


def _counts_batches(name: str) -> bool:
    return name.endswith("num_batches_tracked")
