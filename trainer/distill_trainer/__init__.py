"""The trainer: distils YOLO models with PyTorch and Ultralytics under torchrun. It does not use Kubernetes.

    from distill_trainer import distill

runs a job from a notebook. The trainer runs in separate processes; this import loads neither PyTorch nor Ultralytics.
"""

from typing import TYPE_CHECKING, Any

from distill_trainer.process import offline

if TYPE_CHECKING:
    from distill_local.notebook import distill

__all__ = ["distill"]

_saved_environment = offline.prepare()


def __getattr__(name: str) -> Any:
    if name != "distill":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from distill_local.notebook import distill

    _saved_environment.restore()  # distill() trains in other processes; the caller keeps its own Ultralytics settings
    return distill
