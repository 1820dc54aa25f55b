"""Everything a training run must remember to go on exactly where it was, and nothing that follows from the step."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from ultralytics.utils.torch_utils import ModelEMA

from distill_trainer.training.distillation.task import DistillTask


@dataclass
class TrainingProgress:
    """How far the run is. Epochs are finished once they are validated."""

    step: int = 0
    """Steps finished."""
    epochs_finished: int = 0
    best_fitness: float | None = None
    best_epoch: int = 0
    """Epoch, from 1, of the best fitness."""
    student_map: float | None = None
    student_map50: float | None = None
    first_distillation_loss: float | None = None
    loss_sums: dict[str, float] = field(default_factory=dict)
    """Sum over the running epoch's steps, by component."""
    loss_steps: int = 0
    skipped_in_a_row: int = 0
    stopped_early: bool = False
    seconds: float = 0.0
    """Time that steps took, over all attempts."""

    def finish_step(self, losses: dict[str, float], seconds: float) -> None:
        """A step is finished: count it, and take its losses into the epoch's mean."""
        self.step += 1
        self.seconds += seconds
        for name, value in losses.items():
            self.loss_sums[name] = self.loss_sums.get(name, 0.0) + value
        self.loss_steps += 1

    def mean_losses(self) -> dict[str, float]:
        """Mean losses of the running epoch, by component."""
        return {name: total / max(self.loss_steps, 1) for name, total in self.loss_sums.items()}

    def finish_epoch(self) -> None:
        """The running epoch is validated; the next one starts with empty means."""
        self.epochs_finished += 1
        self.loss_sums, self.loss_steps = {}, 0

    def improved(self, fitness: float) -> bool:
        """Take the fitness of the epoch being finished; True if it is the best so far."""
        better = self.best_fitness is None or fitness > self.best_fitness
        if better or self.best_fitness == 0:  # patience does not run while nothing is detected yet
            self.best_fitness, self.best_epoch = fitness, self.epochs_finished + 1
        return better

    def out_of_patience(self, patience: int) -> bool:
        """Whether `patience` epochs (0: never) went by without a better fitness."""
        return patience > 0 and self.epochs_finished - self.best_epoch >= patience


@dataclass
class TrainingState:
    """The objects whose contents are saved. Once distillation has ended, there is no projector among them."""

    task: DistillTask
    ema: ModelEMA
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    progress: TrainingProgress

    def collect(self) -> dict[str, Any]:
        """Nested dict of references to live tensors and plain values; a checkpoint copies it."""
        return {
            "student": dict(self.task.student_model.state_dict()),
            "projector": dict(self.task.projector.state_dict()) if self.task.projector is not None else None,
            "ema": dict(self.ema.ema.state_dict()),
            "ema_updates": self.ema.updates,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "progress": asdict(self.progress),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Put a collected state back, in place: the EMA, DDP and the optimizer keep their references."""
        self.task.student_model.load_state_dict(state["student"])
        if self.task.projector is not None:
            self.task.projector.load_state_dict(state["projector"])
        self.ema.ema.load_state_dict(state["ema"])
        self.ema.updates = state["ema_updates"]
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        for name, value in state["progress"].items():
            setattr(self.progress, name, value)
