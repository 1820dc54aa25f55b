"""One rank's training run: wires the parts together and lets the loop run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from ultralytics.utils.torch_utils import ModelEMA, init_seeds

from distill_api.constants import JobFile
from distill_api.errors import Stopped
from distill_api.pod.run import RunConfig
from distill_api.spec.fields import DistillJobSpec
from distill_api.status import Result
from distill_trainer.data import TrainData
from distill_trainer.models.compiling import check_compiler
from distill_trainer.models.precision import Precision, student_precision, teacher_dtype
from distill_trainer.models.setup import Prepared, prepare
from distill_trainer.models.student import neck_channels, train_mode, weigh_classes
from distill_trainer.outputs.figures import ValidationFigures
from distill_trainer.outputs.finish import Finish, FinishedRun
from distill_trainer.outputs.reporter import Reporter
from distill_trainer.process.liveness.timeouts import timeouts
from distill_trainer.process.liveness.watchdog import MEETING
from distill_trainer.process.machine.allocator import keep_freed_memory
from distill_trainer.process.machine.cpus import available_cpus
from distill_trainer.process.rank.context import RankContext
from distill_trainer.training.commits import Commits, interval_of
from distill_trainer.training.distillation.losses.registry import LOSSES
from distill_trainer.training.distillation.projector import Projector
from distill_trainer.training.distillation.schedule import WeightSchedule, weight_schedule
from distill_trainer.training.distillation.task import DistillTask
from distill_trainer.training.distillation.teacher import Teacher
from distill_trainer.training.evaluation.comparison import Comparison
from distill_trainer.training.evaluation.epoch_end import Evaluation
from distill_trainer.training.evaluation.scores import Score
from distill_trainer.training.evaluation.validate import ValData
from distill_trainer.training.loop import Loop
from distill_trainer.training.optimizer import Schedule, TrainingPlan, build_optimizer
from distill_trainer.training.parallel.collectives import broadcast_state, process_group, replicate
from distill_trainer.training.parallel.environment import Environment, from_torchrun
from distill_trainer.training.parallel.shards import shards_of
from distill_trainer.training.preprocess import Preprocess
from distill_trainer.training.state import TrainingProgress, TrainingState
from distill_trainer.training.step import Step


def train(run: RunConfig, context: RankContext) -> Result | None:
    """Train this rank's part of one attempt, from the newest checkpoint on. Returns the Result on rank 0, else None.

    Raises Permanent, Retryable or Stopped; errors of collectives, when a peer is gone, pass through.
    """
    began = time.perf_counter()
    environment = from_torchrun(run.spec.uses_cuda)
    if environment.device.type == "cpu":
        keep_freed_memory()
    init_seeds(run.spec.training.seed, deterministic=run.spec.training.deterministic)
    prepared = prepare(run.spec, run.directories, context.watchdog.beat)
    context.watchdog.beat(MEETING)
    with process_group(environment, timeouts(run.spec.recovery.stall_timeout_seconds).collective):
        ended = _Attempt(run, context, environment, prepared, began).run()
    if not environment.is_main:
        return None
    Finish(run, context, environment, prepared, ended).run()
    return Result(
        checkpoint=f"{run.job}/{JobFile.BEST}",
        sha256=ended.student.sha256,
        student_map=ended.student.map50_95,
        teacher_map=ended.teacher.map50_95 if ended.teacher is not None else None,
    )


@dataclass(frozen=True)
class _Attempt:
    """One attempt on one rank."""

    run_config: RunConfig
    context: RankContext
    environment: Environment
    prepared: Prepared
    began: float
    """By time.perf_counter."""

    @property
    def spec(self) -> DistillJobSpec:
        return self.run_config.spec

    def run(self) -> FinishedRun:
        environment, prepared, arguments = self.environment, self.prepared, self.prepared.arguments
        precision = student_precision(self.spec.training.amp, environment.device)
        beat = self.context.watchdog.beat
        teacher_format = teacher_dtype(self.spec.teacher.precision, environment.device) if self.spec.teacher else None
        if self.spec.training.compile:
            beat("compiling")
            check_compiler(environment.device)
        data, val_data = self._train_data(), self._val_data()
        beat("building the models")
        weigh_classes(prepared.student, data.dataset.labels, arguments.cls_pw)
        plan = TrainingPlan(arguments.epochs, data.steps_per_epoch, arguments.batch, data.images, prepared.dataset.nc)
        weight = weight_schedule(self.spec, plan.steps_per_epoch)
        state, schedule = self._state(plan, weight, precision)
        task, optimizer = state.task, state.optimizer
        scoring = time.perf_counter()
        score = self._teacher_score(val_data, precision, state.progress.step)
        scoring = time.perf_counter() - scoring
        beat("building the models")
        if self.spec.training.compile:
            task.student_model.compile()

        my_shards = shards_of(environment.rank, environment.world_size, self.spec.world_size)
        step = Step(
            model=replicate(task, environment),
            task=task,
            # the step's alone, to give back
            teacher=None if weight.over(state.progress.step) else self._teacher(teacher_format),
            optimizer=optimizer,
            schedule=schedule,
            scaler=state.scaler,
            precision=precision,
            ema=state.ema,
            preprocess=Preprocess(
                environment.device, prepared.imgsz, prepared.stride, arguments.multi_scale, arguments.seed
            ),
            weight=weight,
            environment=environment,
            my_shards=my_shards,
            shards=self.spec.world_size,
            last_optimizer_step=state.progress.step - 1,  # commits happen right after a move
        )
        prepared.forget_teacher()
        commits = Commits(
            self.context.checkpointer,
            state,
            interval=self._commit_interval(state),
            hung_after=timeouts(self.spec.recovery.stall_timeout_seconds).watchdog,
            spent=lambda seconds: self.context.metrics.phase("checkpoint", seconds),
        )
        reporter = Reporter(
            self.context,
            plan,
            state.progress,
            optimizer,
            state.scaler,
            images_per_step=len(my_shards) * self._shard_batch,
        )
        if score is not None:
            reporter.teacher_evaluated(score.map50, score.map50_95)
        evaluation = Evaluation(
            plan=plan,
            progress=state.progress,
            ema=state.ema,
            data=val_data,
            environment=environment,
            context=self.context,
            observer=reporter,
            commits=commits,
            arguments=arguments,
            half=_validates_in_half(environment, precision),
        )

        def begin_epoch(epoch: int) -> None:
            train_mode(task.student_model, arguments.freeze)
            task.begin_epoch(epoch)
            reporter.epoch_began(epoch)

        self.context.metrics.phase("start", time.perf_counter() - self.began - scoring)
        Loop(
            plan=plan,
            progress=state.progress,
            step=step,
            data=data,
            stop=self.context.stop,
            commits=commits,
            observer=reporter,
            beat=beat,
            begin_epoch=begin_epoch,
            end_epoch=evaluation.end_epoch,
        ).run()
        return self._ended(evaluation, score, data)

    def _commit_interval(self, state: TrainingState) -> Callable[[], float]:
        return interval_of(
            self.spec.checkpoint.interval_seconds,
            self.context.checkpointer,
            state.progress,
            attempt=self.run_config.attempt,
            cpus=available_cpus() if self.environment.device.type == "cpu" else 0,
            told=self.context.metrics.checkpoint_interval,
        )

    @property
    def _shard_batch(self) -> int:
        return self.spec.training.batch // self.spec.world_size

    def _train_data(self) -> TrainData:
        prepared, environment = self.prepared, self.environment
        return TrainData(
            prepared.dataset,
            self.spec.training,
            task=prepared.task,
            imgsz=prepared.imgsz,
            stride=prepared.stride,
            shard_batch=self._shard_batch,
            shards=self.spec.world_size,
            my_shards=shards_of(environment.rank, environment.world_size, self.spec.world_size),
            seed=self.spec.training.seed,
            workers=self.spec.training.workers,
            device=environment.device,
            moved=lambda: self.context.watchdog.beat("scanning training labels"),
        )

    def _val_data(self) -> ValData:
        prepared, environment = self.prepared, self.environment
        return ValData(
            prepared.dataset,
            self.spec.training,
            task=prepared.task,
            imgsz=prepared.imgsz,
            stride=prepared.stride,
            batch=self._shard_batch * (1 if prepared.task == "obb" else 2),  # as in Ultralytics
            rank=environment.rank,
            world_size=environment.world_size,
            workers=self.spec.training.workers,
            device=environment.device,
            moved=lambda: self.context.watchdog.beat("scanning validation labels"),
        )

    def _comparison(self, val_data: ValData, half: bool) -> Comparison:
        return Comparison(val_data, self.prepared, self.environment, self.context, half)

    def _teacher_score(self, val_data: ValData, precision: Precision, step: int) -> Score | None:
        model, digest = self.prepared.teacher, self.prepared.teacher_sha256
        if model is None or digest is None:
            return None
        comparison = self._comparison(val_data, _validates_in_half(self.environment, precision))
        return comparison.score(model, "teacher", digest, on_stop=lambda: Stopped(step, step))  # as resumed

    def _teacher(self, dtype: torch.dtype | None) -> Teacher | None:
        """The cut teacher, computing in `dtype`; None without one."""
        if dtype is None:
            return None
        teacher = Teacher(self.prepared.teacher, self.environment.device, dtype)
        if self.spec.training.compile:
            teacher.compile()
        return teacher

    def _task(self, weight: WeightSchedule, step: int) -> DistillTask:
        """What is trained from `step` on: no projector when the loss needs none or distillation is over by then."""
        student, teacher = self.prepared.student, self.prepared.teacher
        loss = LOSSES[self.spec.distillation.loss] if weight.end > 0 else None
        projector = None
        if teacher is not None and loss is not None and loss.projects and not weight.over(step):
            torch.manual_seed(self.spec.training.seed)
            projector = Projector(neck_channels(student), neck_channels(teacher))
        task = DistillTask(student, projector, loss)
        return task.to(self.environment.device).to(memory_format=torch.channels_last)

    def _state(
        self, plan: TrainingPlan, weight: WeightSchedule, precision: Precision
    ) -> tuple[TrainingState, Schedule]:
        """What is trained, as the newest checkpoint left it, on every rank; only rank 0 reads it."""
        self.context.watchdog.beat("resuming")
        loaded = self.context.checkpointer.newest() if self.environment.is_main else None
        saved: dict[str, Any] | None = loaded.state if loaded is not None else None
        saved = broadcast_state(saved, self.environment.device)
        task = self._task(weight, saved["progress"]["step"] if saved is not None else 0)
        optimizer, schedule = build_optimizer(task, self.prepared.arguments, plan)
        state = TrainingState(task, ModelEMA(task.student_model), optimizer, precision.scaler(), TrainingProgress())
        if saved is not None:
            state.restore(saved)
        at = self.context.checkpointer.committed_at
        self.context.status.resumed(state.progress.step, at)
        self.context.metrics.resumed(state.progress.step, at)
        return state, schedule

    def _ended(self, evaluation: Evaluation, teacher: Score | None, data: TrainData) -> FinishedRun:
        """What all ranks find out together once nothing is left to train: how good the weights on the volume are."""
        figures = ValidationFigures() if self.prepared.arguments.plots else None
        sha256, metrics = evaluation.best(figures)
        self.context.status.progress(student_map=metrics.map)
        student = Score.of(metrics, sha256=sha256, dataset=self.prepared.dataset.digest, imgsz=self.prepared.imgsz)
        asked = self.spec.report.baseline
        baseline = None
        if asked is not None:
            comparison = self._comparison(evaluation.data, evaluation.half)
            baseline = comparison.baseline(self.run_config.directories, asked, evaluation.stopped_while_validating)
        return FinishedRun(
            progress=evaluation.progress,
            student=student,
            teacher=teacher,
            baseline=baseline,
            figures=figures,
            labels=data.dataset.labels,
            val_images=metrics.images,
        )


def _validates_in_half(environment: Environment, precision: Precision) -> bool:
    return environment.device.type == "cuda" and precision.dtype is not None
