"""Converts spec.training to the argument namespace that Ultralytics' data sets and validators read."""

from typing import Any

from ultralytics.cfg import get_cfg
from ultralytics.utils import IterableSimpleNamespace

from distill_api.spec.training import Training

_UNUSED = {"amp", "compile", "freeze", "optimizer", "val_period"}


def data_arguments(training: Training, task: str, imgsz: int, **others: Any) -> IterableSimpleNamespace:
    """Ultralytics' defaults, overridden by spec.training and by `others`."""
    overrides = training.model_dump(exclude=_UNUSED)
    return get_cfg(overrides=overrides | {"task": task, "imgsz": imgsz, "verbose": False} | others)
