"""The trainer: PyTorch and Ultralytics, torchrun on every node. Knows nothing of Kubernetes.

    from distill_trainer import distill

is the same for notebooks: it starts the trainer as processes of its own and imports neither PyTorch nor Ultralytics.
"""

from typing import TYPE_CHECKING, Any

from distill_trainer.process import offline

if TYPE_CHECKING:
    from distill_local.notebook import distill

__all__ = ["distill"]

_caller = offline.prepare()


def __getattr__(name: str) -> Any:
    if name != "distill":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from distill_local.notebook import distill

    _caller.restore()  # whoever trains in other processes keeps the settings of an Ultralytics of their own
    return distill
