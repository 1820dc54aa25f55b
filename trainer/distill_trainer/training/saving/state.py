"""The state of a training run that is saved in checkpoints. What can be computed from the step is not saved."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from ultralytics.utils.torch_utils import ModelEMA

from distill_trainer.training.distillation.task import DistillTask


@dataclass
class TrainingProgress:
    """Progress of the run. An epoch is finished after its validation."""

    step: int = 0
    """Steps finished."""
    epochs_finished: int = 0
    best_fitness: float | None = None
    best_epoch: int = 0
    """Epoch, from 1, of the best fitness."""
    student_map: float | None = None
    student_map50: float | None = None
    first_distillation_loss: float | None = None
    last_distillation_loss: float | None = None
    """Mean of the last epoch that was looked at."""
    distillation_ended: bool = False
    """Whether it has ended because its loss did not improve."""
    loss_sums: dict[str, float] = field(default_factory=dict)
    """Losses summed over the current epoch's steps, by component."""
    loss_steps: int = 0
    skipped_in_a_row: int = 0
    stopped_early: bool = False
    seconds: float = 0.0
    """Time of all steps, over all attempts."""

    def finish_step(self, losses: dict[str, float], seconds: float) -> None:
        """Count a step, and add its losses to the current epoch's."""
        self.step += 1
        self.seconds += seconds
        for name, value in losses.items():
            self.loss_sums[name] = self.loss_sums.get(name, 0.0) + value
        self.loss_steps += 1

    def mean_losses(self) -> dict[str, float]:
        """Mean losses of the current epoch, by component."""
        return {name: total / max(self.loss_steps, 1) for name, total in self.loss_sums.items()}

    def finish_epoch(self) -> None:
        """Count the current epoch, and reset its losses."""
        self.epochs_finished += 1
        self.loss_sums, self.loss_steps = {}, 0

    def update_best(self, fitness: float) -> bool:
        """Record the fitness of the current epoch. Returns whether it is the best so far."""
        better = self.best_fitness is None or fitness > self.best_fitness
        if better or self.best_fitness == 0:  # patience starts only after the first detections
            self.best_fitness, self.best_epoch = fitness, self.epochs_finished + 1
        return better

    def out_of_patience(self, patience: int) -> bool:
        """Whether the last `patience` epochs (0: unlimited) did not improve the fitness."""
        return patience > 0 and self.epochs_finished - self.best_epoch >= patience


@dataclass
class TrainingState:
    """The objects whose state is saved. After distillation has ended there is no projector."""

    task: DistillTask
    ema: ModelEMA
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    progress: TrainingProgress
    formats: dict[str, str] = field(default_factory=dict)
    """What auto stands for where the spec leaves a number format to it, by field (`models.precision`). The trainer that
    resumes reads it before it builds the state."""

    def collect(self) -> dict[str, Any]:
        """The state as a nested dict. It refers to the live tensors; a checkpoint copies them."""
        return {
            "student": dict(self.task.student_model.state_dict()),
            "projector": dict(self.task.projector.state_dict()) if self.task.projector is not None else None,
            "ema": dict(self.ema.ema.state_dict()),
            "ema_updates": self.ema.updates,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "progress": asdict(self.progress),
            **({"formats": dict(self.formats)} if self.formats else {}),
            **({"balance": dict(balance.state_dict())} if (balance := self.task.balance) is not None else {}),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a collected state in place, because the EMA, DDP and the optimizer hold references."""
        self.task.student_model.load_state_dict(state["student"])
        if self.task.projector is not None:
            self.task.projector.load_state_dict(state["projector"])
        if self.task.balance is not None:
            self.task.balance.load_state_dict(state["balance"])
        self.ema.ema.load_state_dict(state["ema"])
        self.ema.updates = state["ema_updates"]
        self.optimizer.load_state_dict(self._on_this_device(state["optimizer"]))
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        for name, value in state["progress"].items():
            setattr(self.progress, name, value)

    def _on_this_device(self, saved: dict[str, Any]) -> dict[str, Any]:
        """An optimizer's saved state, with the step counts where this optimizer has them: on the host or the device."""
        pairs = zip(saved["param_groups"], self.optimizer.param_groups, strict=True)
        groups = [then | {name: now[name] for name in ("capturable",) if name in now} for then, now in pairs]
        return saved | {"param_groups": groups}
