"""Builds what one rank trains with: its data, training state and step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from ultralytics.utils.torch_utils import ModelEMA, init_seeds

from distill_api.pod.run import RunConfig
from distill_api.spec.fields import DistillJobSpec
from distill_trainer.data import Shards, TrainData
from distill_trainer.models.compiling import check_compiler
from distill_trainer.models.precision import Precision, student_precision, teacher_dtype
from distill_trainer.models.setup import Prepared, prepare
from distill_trainer.models.student import neck_channels, set_class_weights
from distill_trainer.process.liveness.timeouts import Timeouts, timeouts
from distill_trainer.process.machine.allocator import keep_freed_memory
from distill_trainer.process.rank.context import RankContext
from distill_trainer.training.distillation.losses.registry import LOSSES
from distill_trainer.training.distillation.projector import Projector
from distill_trainer.training.distillation.schedule import WeightSchedule
from distill_trainer.training.distillation.task import DistillTask
from distill_trainer.training.distillation.teacher import Teacher
from distill_trainer.training.evaluation.val_data import ValData
from distill_trainer.training.optimizer import Schedule, TrainingPlan, build_optimizer
from distill_trainer.training.parallel.collectives import broadcast_state
from distill_trainer.training.parallel.environment import Environment, from_torchrun
from distill_trainer.training.preprocess import Preprocess
from distill_trainer.training.state import TrainingProgress, TrainingState
from distill_trainer.training.step import Step


@dataclass(frozen=True)
class Setup:
    """The immutable configuration of one rank, built before the rendezvous."""

    run: RunConfig
    context: RankContext
    environment: Environment
    prepared: Prepared

    @classmethod
    def of(cls, run: RunConfig, context: RankContext) -> Setup:
        """Select the device, and load and check the data set and the models. Raises Permanent."""
        environment = from_torchrun(run.spec.uses_cuda)
        if environment.device.type == "cpu":
            keep_freed_memory()
        init_seeds(run.spec.training.seed, deterministic=run.spec.training.deterministic)
        prepared = prepare(run.spec, run.directories, context.watchdog.beat)
        if run.spec.training.compile:
            context.watchdog.beat("compiling")
            check_compiler(environment.device)
        return cls(run, context, environment, prepared)

    @property
    def spec(self) -> DistillJobSpec:
        """The job's specification."""
        return self.run.spec

    @property
    def shards(self) -> Shards:
        """The virtual shards, as many as the job has ranks at full size, and those of this rank."""
        return Shards.of_rank(self.environment.rank, self.environment.world_size, self.spec.world_size)

    @property
    def precision(self) -> Precision:
        """Precision of the student."""
        return student_precision(self.spec.training.amp, self.environment.device)

    @property
    def validates_in_half(self) -> bool:
        """Whether models are validated in fp16."""
        return self.environment.device.type == "cuda" and self.precision.dtype is not None

    @property
    def timeouts(self) -> Timeouts:
        """The timeouts for a stalled attempt."""
        return timeouts(self.spec.recovery.stall_timeout_seconds)


def build_train_data(setup: Setup) -> TrainData:
    """Build this rank's part of the training data. Raises Permanent."""
    return TrainData(
        setup.prepared.dataset,
        setup.spec.training,
        imgsz=setup.prepared.imgsz,
        stride=setup.prepared.stride,
        shards=setup.shards,
        device=setup.environment.device,
        on_progress=lambda: setup.context.watchdog.beat("scanning training labels"),
    )


def build_val_data(setup: Setup) -> ValData:
    """Build this rank's part of the validation data, with batches of two shards, as in Ultralytics (obb: of one)."""
    shard_batch = setup.shards.images(setup.spec.training.batch)
    return ValData(
        setup.prepared.dataset,
        setup.spec.training,
        imgsz=setup.prepared.imgsz,
        stride=setup.prepared.stride,
        batch=shard_batch * (1 if setup.prepared.task == "obb" else 2),
        environment=setup.environment,
        on_progress=lambda: setup.context.watchdog.beat("scanning validation labels"),
    )


def build_plan(setup: Setup, data: TrainData) -> TrainingPlan:
    """The sizes of the run. Also sets the student's class weights for training.cls_pw."""
    arguments, dataset = setup.prepared.arguments, setup.prepared.dataset
    set_class_weights(setup.prepared.student, data.dataset.labels, arguments.cls_pw)
    return TrainingPlan(arguments.epochs, data.steps_per_epoch, arguments.batch, data.images, dataset.nc)


def resume(setup: Setup, plan: TrainingPlan, weight: WeightSchedule) -> tuple[TrainingState, Schedule]:
    """Build the training state and restore it from the newest checkpoint. Only rank 0 reads the volume."""
    context, environment = setup.context, setup.environment
    context.watchdog.beat("resuming")
    loaded = context.checkpointer.newest() if environment.is_main else None
    saved: dict[str, Any] | None = loaded.state if loaded is not None else None
    saved = broadcast_state(saved, environment.device)
    task = _build_task(setup, weight, saved["progress"]["step"] if saved is not None else 0)
    optimizer, schedule = build_optimizer(task, setup.prepared.arguments, plan)
    scaler = setup.precision.scaler()
    state = TrainingState(task, ModelEMA(task.student_model), optimizer, scaler, TrainingProgress())
    if saved is not None:
        state.restore(saved)
    at = context.checkpointer.committed_at
    context.status.resumed(state.progress.step, at)
    context.metrics.resumed(state.progress.step, at)
    return state, schedule


def build_step(setup: Setup, state: TrainingState, schedule: Schedule, weight: WeightSchedule) -> Step:
    """Build the step, with a Teacher unless distillation has ended. Frees the full teacher's memory."""
    prepared, arguments = setup.prepared, setup.prepared.arguments
    if setup.spec.training.compile:
        state.task.student_model.compile()
    step = Step(
        state,
        schedule,
        teacher=None if weight.over(state.progress.step) else _build_teacher(setup),
        weight=weight,
        precision=setup.precision,
        preprocess=Preprocess(
            setup.environment.device, prepared.imgsz, prepared.stride, arguments.multi_scale, arguments.seed
        ),
        shards=setup.shards,
        environment=setup.environment,
    )
    prepared.release_teacher()
    return step


def _build_task(setup: Setup, weight: WeightSchedule, step: int) -> DistillTask:
    """Build the task for a run that continues at `step`: without a projector if the loss or that step needs none."""
    student, teacher = setup.prepared.student, setup.prepared.teacher
    loss = LOSSES[setup.spec.distillation.loss] if weight.end > 0 else None
    projector = None
    if teacher is not None and loss is not None and loss.projects and not weight.over(step):
        torch.manual_seed(setup.spec.training.seed)
        projector = Projector(neck_channels(student), neck_channels(teacher))
    task = DistillTask(student, projector, loss)
    return task.to(setup.environment.device).to(memory_format=torch.channels_last)


def _build_teacher(setup: Setup) -> Teacher | None:
    if setup.spec.teacher is None:
        return None
    device = setup.environment.device
    teacher = Teacher(setup.prepared.teacher, device, teacher_dtype(setup.spec.teacher.precision, device))
    if setup.spec.training.compile:
        teacher.compile()
    return teacher
