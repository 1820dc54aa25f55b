"""spec.training as the argument namespace that Ultralytics' losses, data sets and validators read."""

from __future__ import annotations

from typing import Any

from ultralytics.cfg import get_cfg
from ultralytics.utils import IterableSimpleNamespace

from distill_api.spec.fields import DistillJobSpec

_OURS_ALONE = {"amp", "compile"}


def ultralytics_arguments(spec: DistillJobSpec, task: str, imgsz: int) -> IterableSimpleNamespace:
    """Ultralytics' arguments for this job: its defaults, the job's training section, and what the job says elsewhere.

    `imgsz` is the size after rounding to the model's stride. Precision and compilation are this trainer's business.
    """
    overrides: dict[str, Any] = spec.training.model_dump(exclude=_OURS_ALONE)
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
    """The image size rounded up to a multiple of the largest stride, as Ultralytics does."""
    return max(stride, -(-imgsz // stride) * stride)
