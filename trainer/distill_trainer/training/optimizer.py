"""Builds the optimizer and computes learning rates, momentum and accumulation at each step, as in Ultralytics."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.utils.torch_utils import one_cycle

MAX_GRADIENT_NORM = 10.0
"""Gradient clipping norm over all trained parameters, as in Ultralytics."""


@dataclass(frozen=True)
class TrainingPlan:
    """The sizes of a run, from which optimizer and schedule are computed."""

    epochs: int
    steps_per_epoch: int
    batch: int
    """Global batch."""
    images: int
    """Training images."""
    classes: int

    @property
    def total_steps(self) -> int:
        """Steps (global batches) of the whole run."""
        return self.epochs * self.steps_per_epoch


class Schedule:
    """Learning rates, momentum and gradient accumulation at each step."""

    def __init__(self, arguments: Any, plan: TrainingPlan, warmup_bias_lr: float) -> None:
        self._arguments = arguments
        self._plan = plan
        self._warmup_bias_lr = warmup_bias_lr
        self._accumulate = accumulation(arguments.nbs, plan)
        warmup_epochs = min(arguments.warmup_epochs, max(plan.epochs - 1, 0))  # at least one epoch without warm-up
        self.warmup_steps = round(warmup_epochs * plan.steps_per_epoch)
        self._factor: Callable[[float], float] = (
            one_cycle(1, arguments.lrf, plan.epochs) if arguments.cos_lr else self._linear
        )

    def _linear(self, epoch: float) -> float:
        lrf = self._arguments.lrf
        return float(max(1 - epoch / self._plan.epochs, 0) * (1.0 - lrf) + lrf)

    def accumulate(self, step: int) -> int:
        """Steps whose gradients are accumulated for one optimizer step; increases during the warm-up."""
        if not self._is_warmup(step):
            return self._accumulate
        return max(1, int(np.interp(step, [0, self.warmup_steps], [1, self._accumulate]).round()))

    def learning_rate(self, step: int, initial: float, is_bias: bool) -> float:
        """Learning rate of a parameter group with `initial_lr` at `step`."""
        target = initial * self._factor(step // self._plan.steps_per_epoch)
        if not self._is_warmup(step):
            return target
        start = self._warmup_bias_lr if is_bias else 0.0
        return float(np.interp(step, [0, self.warmup_steps], [start, target]))

    def momentum(self, step: int, initial: float) -> float:
        """Momentum at `step`; the group's `initial` momentum if there is no warm-up."""
        if self.warmup_steps == 0:
            return initial
        low, high = self._arguments.warmup_momentum, self._arguments.momentum
        return float(np.interp(step, [0, self.warmup_steps], [low, high]))

    def apply(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Set the learning rates and momentum of the optimizer's groups for `step`."""
        for group in optimizer.param_groups:
            group["lr"] = self.learning_rate(step, group["initial_lr"], group.get("param_group") == "bias")
            if "momentum" in group:
                group["momentum"] = self.momentum(step, group["initial_momentum"])

    def _is_warmup(self, step: int) -> bool:
        return self.warmup_steps > 0 and step <= self.warmup_steps


def accumulation(nbs: int, plan: TrainingPlan) -> int:
    """Steps to accumulate so that about `nbs` images make one optimizer step."""
    return min(max(round(nbs / plan.batch), 1), plan.total_steps)


def build_optimizer(task: nn.Module, arguments: Any, plan: TrainingPlan) -> tuple[torch.optim.Optimizer, Schedule]:
    """Build the optimizer over the trained parameters of `task`, with Ultralytics' parameter groups, and its schedule.

    `task` must have the attribute `student_model` (MuSGD trains its class branches faster) and no teacher. `auto`
    chooses optimizer, learning rate and bias warm-up from the number of iterations and classes.
    """
    accumulate = max(round(arguments.nbs / plan.batch), 1)
    chosen = SimpleNamespace(lr0=arguments.lr0, optimizer=arguments.optimizer, warmup_bias_lr=arguments.warmup_bias_lr)
    rules: Any = SimpleNamespace(args=chosen, data={"nc": plan.classes})
    optimizer: torch.optim.Optimizer = BaseTrainer.build_optimizer(
        rules,
        model=task,
        name=arguments.optimizer,
        lr=arguments.lr0,
        momentum=arguments.momentum,
        decay=arguments.weight_decay * plan.batch * accumulate / arguments.nbs,
        iterations=math.ceil(plan.images / max(plan.batch, arguments.nbs)) * plan.epochs,
    )
    for group in optimizer.param_groups:
        group["params"] = [parameter for parameter in group["params"] if parameter.requires_grad]
        group["initial_lr"] = group["lr"]
        group["initial_momentum"] = group.get("momentum", 0.0)
        if "capturable" in group:  # the device counts the steps, because it decides which of them are skipped
            group["capturable"] = any(parameter.is_cuda for parameter in group["params"])
    # torch's warning is about the time that this takes
    warnings.filterwarnings("ignore", message=r".*capturable=True.* without \w+ graph capture", category=UserWarning)
    _drop_empty_groups(optimizer)
    return optimizer, Schedule(arguments, plan, chosen.warmup_bias_lr)


def remove_parameters(optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter]) -> None:
    """Remove parameters and their state from the optimizer."""
    removed = {id(parameter): parameter for parameter in parameters}
    for group in optimizer.param_groups:
        group["params"] = [parameter for parameter in group["params"] if id(parameter) not in removed]
    for parameter in removed.values():
        optimizer.state.pop(parameter, None)
    _drop_empty_groups(optimizer)


def _drop_empty_groups(optimizer: torch.optim.Optimizer) -> None:
    optimizer.param_groups = [group for group in optimizer.param_groups if group["params"]]
