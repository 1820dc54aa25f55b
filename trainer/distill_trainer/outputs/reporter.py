"""Records the events of training in metrics, status, console, results.csv and TensorBoard."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from distill_trainer.outputs.optional import try_output
from distill_trainer.outputs.results import read_rows, results_csv, with_row
from distill_trainer.outputs.tensorboard import event_files
from distill_trainer.process.rank.context import RankContext
from distill_trainer.training.device.results import StepResult
from distill_trainer.training.distillation.task import DISTILLATION_LOSS
from distill_trainer.training.optimizer import TrainingPlan
from distill_trainer.training.saving.state import TrainingProgress, TrainingState

log = logging.getLogger(__name__)

_CACHE_SECONDS = 10.0
"""Time between two looks at how much is cached."""


class Reporter:
    """Records the events of one rank. Only rank 0 records those of the whole job."""

    def __init__(
        self,
        context: RankContext,
        plan: TrainingPlan,
        state: TrainingState,
        images_per_step: int,
        cached: Callable[[], tuple[int, int]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`images_per_step`: images of this rank in a step. `cached`: images that the data cache has, and can have."""
        progress = state.progress
        self._context, self._plan, self._progress = context, plan, progress
        self._optimizer, self._scaler, self._images = state.optimizer, state.scaler, images_per_step
        self._clock, self._epoch_started_at = clock, clock()
        self._first_step = progress.step
        self._cached, self._cached_before, self._asked_cache_at = cached, -1, -_CACHE_SECONDS
        self._rows = read_rows(context.files.results_csv) if context.env.is_main else []
        self._tensorboard = True
        context.metrics.planned(steps=plan.total_steps)
        context.status.progress(
            step=progress.step,
            steps=plan.total_steps,
            epoch=progress.epochs_finished,
            epochs=plan.epochs,
            student_map=progress.student_map,
            first_distillation_loss=progress.first_distillation_loss,
        )

    def epoch_started(self, epoch: int) -> None:
        """Epoch `epoch` (from 0) starts or resumes."""
        self._epoch_started_at = self._clock()
        done = self._progress.step - epoch * self._plan.steps_per_epoch
        self._context.status.update(state="training")
        self._context.console.epoch_started(epoch + 1, self._plan.epochs, self._plan.steps_per_epoch, done)

    def step_finished(
        self, progress: TrainingProgress, result: StepResult, seconds: float, phases: Mapping[str, float]
    ) -> None:
        """A step is finished."""
        metrics, losses = self._context.metrics, short_names(result.losses)
        metrics.step(images=self._images, seconds=seconds, step=progress.step, epoch=progress.epochs_finished)
        for phase, duration in phases.items():
            metrics.phase(phase, duration)
        metrics.losses(losses)
        metrics.learning_rates(self._learning_rates())
        if result.gradient_norm is not None:
            metrics.grad_norm(result.gradient_norm)
        if result.neck is not None:
            metrics.neck_gradients(result.neck.ratios, result.neck.cosines)
        if result.skipped:
            metrics.skipped("overflow" if self._scaler.is_enabled() else "non_finite")
        if result.amp_scale is not None:
            metrics.amp_scale(result.amp_scale)
        if torch.cuda.is_initialized():
            metrics.gpu_memory(torch.cuda.max_memory_reserved())
        self._context.status.update(steps_this_attempt=progress.step - self._first_step)
        self._context.status.progress(
            step=progress.step, distillation_loss=progress.mean_losses().get(DISTILLATION_LOSS)
        )
        self._tell_cache()
        self._context.console.batch_done(losses)

    def committing(self) -> None:
        """All steps are done; the rank waits for the last commit."""
        self._context.status.update(state="committing")

    def stopping(self) -> None:
        """A stop was requested; the rank waits for the last commit."""
        self._context.status.update(state="stopping")

    def teacher_evaluated(self, map50: float, map50_95: float) -> None:
        """The teacher was validated."""
        self._context.metrics.evaluated("teacher", map50=map50, map50_95=map50_95)
        self._context.status.progress(teacher_map=map50_95)

    def epoch_finished(self, losses: Mapping[str, float], validation: Any | None) -> dict[Path, bytes]:
        """An epoch is finished; `losses` are its means, `validation` its ValMetrics or None. Returns the files that
        tell of it, on rank 0.
        """
        progress = self._progress
        map50_95 = validation.map if validation is not None else None
        self._context.metrics.epoch(progress.epochs_finished)
        if validation is not None:
            self._context.metrics.evaluated("student", map50=validation.map50, map50_95=validation.map)
        self._context.status.progress(
            epoch=progress.epochs_finished,
            student_map=progress.student_map,
            first_distillation_loss=progress.first_distillation_loss,
            distillation_loss=losses.get(DISTILLATION_LOSS),
        )
        seconds = self._clock() - self._epoch_started_at
        self._context.console.epoch_done(
            progress.epochs_finished, self._plan.epochs, short_names(losses), seconds, map50_95
        )
        self._tell_cache(at_epoch=True)
        if not self._context.env.is_main:
            return {}
        self._rows = with_row(self._rows, self._row(losses, validation))
        return {self._context.files.results_csv: results_csv(self._rows)} | self._events()

    def _tell_cache(self, *, at_epoch: bool = False) -> None:
        now = self._clock()
        if self._cached is None or (now - self._asked_cache_at < _CACHE_SECONDS and not at_epoch):
            return
        self._asked_cache_at = now
        cached, cacheable = self._cached()
        self._context.status.progress(cached_images=cached, cacheable_images=cacheable)
        if at_epoch and self._context.env.local_rank == 0 and cached != self._cached_before:
            self._cached_before = cached
            log.info("dataCache: %d of %d images are on this node", cached, cacheable)

    def _events(self) -> dict[Path, bytes]:
        if not self._tensorboard:
            return {}
        folder = self._context.files.tensorboard
        files, problem = try_output("TensorBoard", lambda: event_files(folder, self._rows, time.time()))
        self._tensorboard = problem is None  # logged once; tried again at the end of the run
        return files or {}

    def _row(self, losses: Mapping[str, float], validation: Any | None) -> dict[str, float]:
        """A row of results.csv, with Ultralytics' columns, order and rounding."""
        row = {"epoch": self._progress.epochs_finished, "time": round(self._progress.seconds, 3)}
        row |= {f"train/{name}": round(value, 5) for name, value in losses.items()}
        if validation is not None:
            row |= {name: value for name, value in validation.results.items() if name != "fitness"}  # as Ultralytics
            row |= {f"val/{name}": round(value, 5) for name, value in validation.losses.items()}
            # Validation runs without the teacher; Ultralytics writes 0 for its distillation loss, too.
            row |= {f"val/{name}": 0.0 for name in losses if name.startswith("dis_")}
        return row | {f"lr/{name}": value for name, value in self._learning_rates().items()}

    def _learning_rates(self) -> dict[str, float]:
        return {f"pg{number}": group["lr"] for number, group in enumerate(self._optimizer.param_groups)}


def short_names(losses: Mapping[str, float]) -> dict[str, float]:
    """Losses by the names that metrics and console use: box, cls, dfl, dis …"""
    return {name.removesuffix("_loss"): value for name, value in losses.items()}
