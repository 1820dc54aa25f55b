"""Builds a training state, and the step that trains it, from a pair of models and the sizes of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from ultralytics.utils.torch_utils import ModelEMA

from distill_trainer.data import Shards
from distill_trainer.models.cpu_kernels import make_gradients_dense, pack_convolutions
from distill_trainer.models.precision import Precision
from distill_trainer.models.student import grid_size, neck_channels, seed_after_first_weights
from distill_trainer.training.device.preprocess import Preprocess
from distill_trainer.training.distillation.balance import Balance
from distill_trainer.training.distillation.losses.registry import Signal
from distill_trainer.training.distillation.plan import DistillationPlan
from distill_trainer.training.distillation.projector import Projector
from distill_trainer.training.distillation.task import DistillTask
from distill_trainer.training.distillation.teacher import Teacher
from distill_trainer.training.optimizer import Schedule, TrainingPlan, build_optimizer
from distill_trainer.training.parallel.environment import Environment
from distill_trainer.training.saving.corrected import check_optimizer, hyperparameters, set_hyperparameters
from distill_trainer.training.saving.state import TrainingProgress, TrainingState
from distill_trainer.training.step import Step


@dataclass(frozen=True)
class StepBuilder:
    """The parts of one rank's step. It refers to the full teacher: drop the builder to free that memory."""

    student: Any
    """The model, with Ultralytics' arguments as its `args`; it is trained in place."""
    teacher: Any | None
    """The full teacher; None: train without distillation."""
    plan: TrainingPlan
    distillation: DistillationPlan
    shards: Shards
    environment: Environment
    precision: Precision
    """Precision of the student."""
    compile: bool = False
    late: bool | None = None
    """Whether the result of a step is read when the next one is queued. None: on CUDA, where reading takes time."""

    def build_state(self, saved: dict[str, Any] | None = None) -> tuple[TrainingState, Schedule]:
        """A new training state, or the state that was `saved`, and the schedule of its optimizer."""
        task = self._build_task(saved["progress"] if saved is not None else {"step": 0})
        optimizer, schedule = build_optimizer(task, self.student.args, self.plan)
        state = TrainingState(task, ModelEMA(self.student), optimizer, self.precision.scaler(), TrainingProgress())
        if saved is not None:
            check_optimizer(saved, optimizer)
            asked = hyperparameters(optimizer)
            state.restore(saved)
            set_hyperparameters(optimizer, asked)
        return state, schedule

    def build_step(self, state: TrainingState, schedule: Schedule) -> Step:
        """The step that trains `state`, with a Teacher unless distillation has ended. All ranks call this together."""
        arguments, device = self.student.args, self.environment.device
        if self.compile:
            self.student.compile()
        elif device.type == "cpu":
            make_gradients_dense(self.student)
        return Step(
            state,
            schedule,
            teacher=None if self._distillation_over(vars(state.progress)) else self._build_teacher(),
            distillation=self.distillation,
            precision=self.precision,
            preprocess=Preprocess(
                device, arguments.imgsz, grid_size(self.student), arguments.multi_scale, arguments.seed
            ),
            shards=self.shards,
            environment=self.environment,
            late=self.late if self.late is not None else device.type == "cuda",
        )

    def _distillation_over(self, progress: Mapping[str, Any]) -> bool:
        return self.distillation.weight.over(progress["step"]) or bool(progress.get("distillation_ended"))

    def _build_task(self, progress: Mapping[str, Any]) -> DistillTask:
        """The task for a run with this `progress`: without a projector if the terms or the next step need none."""
        plan = self.distillation
        terms = plan.terms if plan.weight.end > 0 else ()
        projector, balance = None, None
        if self.teacher is not None and any(term.on_neck for term in terms) and not self._distillation_over(progress):
            seed_after_first_weights(self.student)
            channels = neck_channels(self.student)
            projector = Projector(channels, neck_channels(self.teacher), linear=plan.linear)
            if plan.neck:
                projector.align(plan.neck)
            balance = Balance(len(channels), plan.share) if plan.share is not None else None
        task = DistillTask(self.student, projector, terms, balance, plan.labelled)
        return task.to(self.environment.device).to(memory_format=torch.channels_last)

    def _build_teacher(self) -> Teacher | None:
        if self.teacher is None:
            return None
        plan = self.distillation
        needs = frozenset[Signal]().union(*(term.loss.needs for term in plan.terms))
        teacher = Teacher(self.teacher, self.environment.device, plan.teacher_dtype, needs, plan.batch_fraction)
        if self.compile:
            teacher.compile()
        elif self.environment.device.type == "cpu":
            pack_convolutions(teacher)
        return teacher
