"""A run that goes on with a corrected spec: what of it a checkpoint's state would undo, or does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from distill_api.spec.fields import DistillJobSpec
from distill_trainer.checkpoint.checkpointer import mismatch
from distill_trainer.training.distillation.schedule import weight_schedule

_FROM_SPEC = ("initial_lr",)
"""Settings of a parameter group that follow training.lr0; the optimizer's saved state has those of an earlier spec."""


def check_distillation(spec: DistillJobSpec, recorded: Mapping[str, Any], step: int, steps_per_epoch: int) -> None:
    """Raise Permanent if distillation had ended at `step` and would begin again, because training.epochs has grown.

    `recorded`: the definition of the run that wrote the checkpoint.
    """
    epochs = recorded.get("training", {}).get("epochs", type(spec.training)().epochs)
    before = spec.model_copy(update={"training": spec.training.model_copy(update={"epochs": epochs})})
    if weight_schedule(before, steps_per_epoch).over(step) and not weight_schedule(spec, steps_per_epoch).over(step):
        raise mismatch(
            step, f"distillation has ended, and with training.epochs {spec.training.epochs} would begin again"
        )


def check_optimizer(saved: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> None:
    """Raise Permanent if the saved state is of another kind of optimizer, which `auto` chooses from training.epochs."""
    then, now = saved["optimizer"]["param_groups"][0], optimizer.param_groups[0]
    if any((name in then) != (name in now) for name in ("betas", "nesterov", "use_muon")):
        kind = type(optimizer).__name__
        raise mismatch(
            saved["progress"]["step"], f"training.optimizer auto chooses {kind} for this many training.epochs"
        )


def hyperparameters(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """What the spec says of each parameter group."""
    return [{name: group[name] for name in _FROM_SPEC} for group in optimizer.param_groups]


def set_hyperparameters(optimizer: torch.optim.Optimizer, asked: list[dict[str, Any]]) -> None:
    """Set it again, after the saved state has replaced it."""
    for group, values in zip(optimizer.param_groups, asked, strict=True):
        group.update(values)
