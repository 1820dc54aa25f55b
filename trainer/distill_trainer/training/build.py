"""Builds what one rank trains with: its data, training state and step."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ultralytics.utils.torch_utils import init_seeds

from distill_api.pod.run import RunConfig
from distill_api.reading.quantity import amount
from distill_api.spec.fields import DistillJobSpec
from distill_trainer.data import DatasetInfo, Shards, TrainData
from distill_trainer.data.config import DatasetConfig
from distill_trainer.models.compiling import check_compiler, keep_compiled
from distill_trainer.models.precision import Formats, Precision, choose_formats, use_fast_kernels
from distill_trainer.models.setup import Prepared, prepare
from distill_trainer.models.student import set_class_weights
from distill_trainer.process.liveness.timeouts import Timeouts, timeouts
from distill_trainer.process.machine.allocator import keep_freed_memory
from distill_trainer.process.rank.context import RankContext
from distill_trainer.training.distillation.plan import DistillationPlan
from distill_trainer.training.distillation.schedule import weight_schedule
from distill_trainer.training.distillation.task import Term
from distill_trainer.training.distillation.terms import check_task, terms_of
from distill_trainer.training.evaluation.val_data import ValData
from distill_trainer.training.optimizer import Schedule, TrainingPlan
from distill_trainer.training.parallel.collectives import broadcast_state
from distill_trainer.training.parallel.environment import Environment, from_torchrun
from distill_trainer.training.parallel.labels import SharedLabels
from distill_trainer.training.saving.corrected import check_distillation
from distill_trainer.training.saving.state import TrainingState
from distill_trainer.training.step import Step
from distill_trainer.training.step_builder import StepBuilder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Setup:
    """The immutable configuration of one rank, built before there is a process group."""

    run: RunConfig
    context: RankContext
    environment: Environment
    prepared: Prepared
    terms: Sequence[Term]
    """Of the distillation loss."""
    labels: SharedLabels

    @classmethod
    def of(cls, run: RunConfig, context: RankContext) -> Setup:
        """Select the device, and load and check the data set and the models. Raises Permanent."""
        environment = from_torchrun(run.spec.uses_cuda)
        if environment.device.type == "cpu":
            keep_freed_memory()
            torch.set_num_threads(torch.get_num_threads())  # or MKL may take fewer, and adds up in another order then
        init_seeds(run.spec.training.seed, deterministic=run.spec.training.deterministic)
        if environment.device.type == "cuda" and not run.spec.training.deterministic:
            use_fast_kernels()
        if run.recipe is not None:
            log.info("recipe: auto stands for %s", json.dumps(run.recipe))
        terms = terms_of(run.spec.distillation)  # a loss that does not exist ends the attempt here
        labels = SharedLabels(context, timeouts(run.spec.recovery.stall_timeout_seconds))

        def open_labels(config: DatasetConfig) -> DatasetInfo:
            check_task(terms, config.task)
            if run.spec.training.compile:
                context.watchdog.beat("compiling")
                keep_compiled(context.files.compiled)
                check_compiler(environment.device)
            return _with_cache(run, labels.open(config))

        prepared = prepare(run.spec, run.directories, context.watchdog.beat, open_labels)
        return cls(run, context, environment, prepared, terms, labels)

    @property
    def spec(self) -> DistillJobSpec:
        """The job's specification."""
        return self.run.spec

    @property
    def shards(self) -> Shards:
        """The virtual shards, as many as the job has ranks at full size, and those of this rank."""
        return Shards.of_rank(self.environment.rank, self.environment.world_size, self.spec.world_size)

    @property
    def timeouts(self) -> Timeouts:
        """The timeouts for a stalled attempt."""
        return timeouts(self.spec.recovery.stall_timeout_seconds)


def _with_cache(run: RunConfig, dataset: DatasetInfo) -> DatasetInfo:
    """The data set with its copies on this node, if the job wants them and the folder can be used."""
    wanted, folder = run.spec.data_cache, run.directories.cache
    if wanted is None:
        return dataset
    if folder is None:
        log.info("dataCache is for pods: a local run reads the images where they are")
        return dataset
    try:
        return dataset.with_cache(Path(folder), int(amount(wanted.size)))
    except OSError as error:
        log.warning("dataCache is not used, because %s cannot be: %s", folder, error)
        return dataset


@dataclass(frozen=True)
class Saved:
    """What rank 0 found on the checkpoints volume and decided, the same on every rank."""

    state: dict[str, Any] | None
    """The newest checkpoint's; None for a run that begins."""
    formats: Formats
    """The run's number formats."""


def build_train_data(setup: Setup) -> TrainData:
    """Build this rank's part of the training data. Raises Permanent."""
    return TrainData(
        setup.prepared.dataset,
        setup.spec.training,
        imgsz=setup.prepared.imgsz,
        stride=setup.prepared.stride,
        shards=setup.shards,
        device=setup.environment.device,
        unlabelled_ratio=setup.spec.dataset.unlabelled.ratio if setup.spec.dataset.unlabelled is not None else 0.0,
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
    )


def build_plan(setup: Setup, data: TrainData) -> TrainingPlan:
    """The sizes of the run. Also sets the student's class weights for training.cls_pw."""
    arguments, dataset = setup.prepared.arguments, setup.prepared.dataset
    set_class_weights(setup.prepared.student, data.dataset.labels.classes, arguments.cls_pw)
    return TrainingPlan(arguments.epochs, data.steps_per_epoch, arguments.batch, data.images, dataset.nc)


def build_distillation(setup: Setup, plan: TrainingPlan, formats: Formats) -> DistillationPlan:
    """What the run distils."""
    spec, teacher = setup.spec, setup.spec.teacher
    weight = weight_schedule(spec, plan.steps_per_epoch)
    if teacher is None:
        return DistillationPlan(weight)
    return DistillationPlan(
        weight,
        setup.terms,
        share=spec.distillation.share,
        linear=spec.distillation.projector == "linear",
        teacher_dtype=formats.teacher_dtype,
        batch_fraction=teacher.batch_fraction,
        labelled=setup.shards.images(spec.training.batch) if spec.dataset.unlabelled is not None else None,
        neck=setup.prepared.inherited.neck if setup.prepared.inherited is not None else (),
        min_improvement=until.min_improvement if (until := spec.distillation.until) is not None else None,
    )


def load_saved(setup: Setup, plan: TrainingPlan) -> Saved:
    """The newest checkpoint's state, and the run's number formats. Only rank 0 reads the volume and decides."""
    context, environment = setup.context, setup.environment
    context.watchdog.beat("resuming")
    saved, execution = Saved(None, Formats("fp32")), context.checkpointer.execution
    if environment.is_main:
        loaded = context.checkpointer.newest()
        if loaded is not None and loaded.manifest.run is not None:
            check_distillation(setup.spec, loaded.manifest.run, loaded.step, plan.steps_per_epoch)
        state = loaded.state if loaded is not None else None
        saved = Saved(state, choose_formats(setup.spec, environment.device, (state or {}).get("formats")))
    sent: dict[str, Any] = {"state": saved.state, "formats": saved.formats, "execution": execution}
    received = broadcast_state(sent, environment.device) or sent
    context.joined(received["execution"])
    return Saved(received["state"], received["formats"])


def resume(
    setup: Setup, plan: TrainingPlan, distillation: DistillationPlan, saved: Saved
) -> tuple[TrainingState, Schedule]:
    """Build the training state and restore it from the newest checkpoint."""
    context = setup.context
    state, schedule = _step_builder(setup, plan, distillation, saved.formats).build_state(saved.state)
    state.formats = dict(saved.formats.auto)
    at = context.checkpointer.committed_at
    context.status.resumed(state.progress.step, at)
    context.metrics.resumed(state.progress.step, at)
    return state, schedule


def build_step(
    setup: Setup,
    plan: TrainingPlan,
    distillation: DistillationPlan,
    formats: Formats,
    state: TrainingState,
    schedule: Schedule,
) -> Step:
    """Build the step, and free the full teacher's memory."""
    step = _step_builder(setup, plan, distillation, formats).build_step(state, schedule)
    setup.prepared.release_teacher()
    return step


def _step_builder(setup: Setup, plan: TrainingPlan, distillation: DistillationPlan, formats: Formats) -> StepBuilder:
    return StepBuilder(
        setup.prepared.student,
        setup.prepared.teacher,
        plan,
        distillation,
        setup.shards,
        setup.environment,
        Precision.of(formats.student, setup.environment.device),
        compile=setup.spec.training.compile,
    )
