"""Converts a job's spec to the argument namespace that Ultralytics' losses, data sets and validators read."""

from __future__ import annotations

from typing import Any

from ultralytics.cfg import get_cfg
from ultralytics.utils import IterableSimpleNamespace

from distill_api.spec.fields import DistillJobSpec

_NOT_ULTRALYTICS = {"amp", "compile", "val_period"}
"""The trainer implements these itself."""


def ultralytics_arguments(spec: DistillJobSpec, task: str, imgsz: int) -> IterableSimpleNamespace:
    """Ultralytics' defaults, overridden by the job's spec. `imgsz`: image size rounded to the model's stride."""
    overrides: dict[str, Any] = spec.training.model_dump(exclude=_NOT_ULTRALYTICS)
    overrides |= {
        "task": task,
        "mode": "train",
        "imgsz": imgsz,
        "model": spec.student.model,
        "data": spec.dataset.config,
        "dis": spec.distillation.weight,
        "amp": False,
        "verbose": False,
        "save_json": False,
    }
    if spec.teacher is not None:
        overrides["distill_model"] = spec.teacher.model
    return get_cfg(overrides=overrides)


def rounded_imgsz(imgsz: int, stride: int) -> int:
    """The image size rounded up to a multiple of the largest stride, as in Ultralytics."""
    return max(stride, -(-imgsz // stride) * stride)
