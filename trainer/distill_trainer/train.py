"""One rank's training run: set up, build, resume, train, finish."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

from distill_api.constants import JobFile
from distill_api.errors import Checked, Stopped
from distill_api.pod.run import RunConfig
from distill_api.status import Result
from distill_trainer.data import TrainData
from distill_trainer.outputs.figures import ValidationFigures
from distill_trainer.outputs.finish import Finish, FinishedRun
from distill_trainer.outputs.reporter import Reporter
from distill_trainer.process.liveness.watchdog import RENDEZVOUS
from distill_trainer.process.machine.cpus import available_cpus
from distill_trainer.process.rank.context import RankContext
from distill_trainer.training.build import (
    Setup,
    build_distillation,
    build_plan,
    build_step,
    build_train_data,
    build_val_data,
    load_saved,
    resume,
)
from distill_trainer.training.checking import check, leaving_nothing
from distill_trainer.training.evaluation.comparison import Comparison
from distill_trainer.training.evaluation.epoch_end import Evaluation
from distill_trainer.training.evaluation.scores import Score
from distill_trainer.training.evaluation.val_data import ValData
from distill_trainer.training.inheriting import inherit_weights
from distill_trainer.training.loop import Loop
from distill_trainer.training.parallel.collectives import process_group
from distill_trainer.training.saving.commits import Commits, commit_interval
from distill_trainer.training.saving.state import TrainingState


def train(run: RunConfig, context: RankContext) -> Result | None:
    """Train this rank's part of one attempt, starting from the newest checkpoint.

    Returns the Result on rank 0 and None on other ranks. Raises Permanent, Retryable or Stopped, and Checked for a job
    that is only to be checked. Errors of torch.distributed collectives are not caught.
    """
    if run.spec.check_only:
        with leaving_nothing(context.files):
            raise Checked(check(Setup.of(run, context)))
    started = time.perf_counter()
    setup = Setup.of(run, context)
    context.watchdog.beat(RENDEZVOUS)
    with process_group(setup.environment, setup.timeouts) as context.watchdog.waits_for:
        finished = _train_with_peers(setup, started)
    if not setup.environment.is_main:
        return None
    Finish(run, context, setup.environment, setup.prepared, finished).run()
    return Result(
        checkpoint=f"{run.job}/{JobFile.BEST}",
        sha256=finished.student.sha256,
        student_map=finished.student.map50_95,
        teacher_map=finished.teacher.map50_95 if finished.teacher is not None else None,
    )


def _train_with_peers(setup: Setup, started: float) -> FinishedRun:
    """Everything that needs the process group. `started`: when this rank started, by time.perf_counter."""
    data = build_train_data(setup)
    with closing(build_val_data(setup)) as val_data:
        return _train_and_validate(setup, data, val_data, started)


def _train_and_validate(setup: Setup, data: TrainData, val_data: ValData, started: float) -> FinishedRun:
    context = setup.context
    context.watchdog.beat("building the models")
    plan = build_plan(setup, data)
    saved = load_saved(setup, plan)
    formats = saved.formats
    inherit_weights(setup, saved)
    distillation = build_distillation(setup, plan, formats)
    data.end_unlabelled(distillation.weight.end)
    state, schedule = resume(setup, plan, distillation, saved)
    del saved  # the state's tensors
    half = formats.validates_in_half(setup.environment.device)
    teacher, scoring_seconds = _score_teacher(setup, val_data, state.progress.step, half)
    context.watchdog.beat("building the models")
    step = build_step(setup, plan, distillation, formats, state, schedule)
    commits = _build_commits(setup, state)
    shard_images = setup.shards.images(setup.spec.training.batch)
    cache = setup.prepared.dataset.cache
    reporter = Reporter(
        context, plan, state, len(setup.shards.local) * shard_images, cache.progress if cache is not None else None
    )
    if teacher is not None:
        reporter.teacher_evaluated(teacher.map50, teacher.map50_95)
    period = setup.spec.training.val_period if setup.spec.training.val else None
    evaluation = Evaluation(plan, state, val_data, context, reporter, commits, half, period)
    context.metrics.phase("start", time.perf_counter() - started - scoring_seconds)
    Loop(plan, step, data, commits, reporter, evaluation.end_epoch, context.stop, context.watchdog.beat).run()
    return _finished(setup, evaluation, teacher, data.dataset.labels)


def _score_teacher(setup: Setup, val_data: ValData, step: int, half: bool) -> tuple[Score | None, float]:
    """The teacher's score on the validation images (None without a teacher), and the seconds it took."""
    model, digest = setup.prepared.teacher, setup.prepared.teacher_sha256
    if model is None or digest is None:
        return None, 0.0
    started = time.perf_counter()
    comparison = Comparison(val_data, setup.prepared, setup.context, half)
    score = comparison.score(model, "teacher", digest, stop_error=lambda: Stopped(step, step))
    return score, time.perf_counter() - started


def _build_commits(setup: Setup, state: TrainingState) -> Commits:
    context = setup.context
    interval: Callable[[], float] = commit_interval(
        setup.spec.checkpoint.interval_seconds,
        context.checkpointer,
        state.progress,
        attempt=setup.run.attempt,
        cpus=available_cpus() if setup.environment.device.type == "cpu" else 0,
        on_change=context.metrics.checkpoint_interval,
    )
    return Commits(
        context.checkpointer,
        state,
        interval,
        hung_after=setup.timeouts.watchdog,
        on_blocked=lambda seconds: context.metrics.phase("checkpoint", seconds),
    )


def _finished(setup: Setup, evaluation: Evaluation, teacher: Score | None, labels: Sequence[Any]) -> FinishedRun:
    """Validate the best weights and score the baseline, on all ranks, after the last step."""
    prepared, directories = setup.prepared, setup.run.directories
    figures = ValidationFigures() if prepared.arguments.plots else None
    sha256, metrics = evaluation.validate_best(figures)
    setup.context.status.progress(student_map=metrics.map)
    baseline = None
    if (name := setup.spec.report.baseline) is not None:
        comparison = Comparison(evaluation.data, prepared, setup.context, evaluation.half)
        baseline = comparison.score_baseline(directories, name, evaluation.stop_during_validation)
    return FinishedRun(
        progress=evaluation.progress,
        student=Score.of(metrics, sha256=sha256, dataset=prepared.dataset.digest, imgsz=prepared.imgsz),
        teacher=teacher,
        baseline=baseline,
        figures=figures,
        labels=labels,
        val_images=metrics.images,
    )
