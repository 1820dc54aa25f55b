"""The end of an epoch: validates the student's EMA on all ranks, saves the weights, and decides on early stopping."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from distill_api.errors import Stopped
from distill_trainer.models.loading import file_sha256, load_tensors
from distill_trainer.models.weights import weights_bytes
from distill_trainer.process.rank.context import RankContext
from distill_trainer.training.distillation.task import DISTILLATION_LOSS
from distill_trainer.training.evaluation.validate import Figures, Interrupted, ValData, ValMetrics, validate
from distill_trainer.training.optimizer import TrainingPlan
from distill_trainer.training.parallel.collectives import broadcast_buffers, broadcast_state
from distill_trainer.training.parallel.environment import Environment
from distill_trainer.training.saving.commits import Commits
from distill_trainer.training.saving.state import TrainingProgress, TrainingState


class EvaluationObserver(Protocol):
    """Callbacks for the end of an epoch."""

    def epoch_finished(self, losses: Mapping[str, float], validation: ValMetrics | None) -> dict[Path, bytes]:
        """An epoch is finished; `losses` are its means. Returns files to write before the next commit."""

    def stopping(self) -> None:
        """A stop was requested; the rank waits for the last commit."""


def validates(epoch: int, epochs: int, period: int | None) -> bool:
    """Whether epoch `epoch`, counted from 1, of `epochs` ends with a validation: each `period`-th one, and the last."""
    return epoch >= epochs or (period is not None and epoch % period == 0)


@dataclass(frozen=True)
class Evaluation:
    """Validates the student's EMA and saves it as weights/best.pt and weights/last.pt."""

    plan: TrainingPlan
    state: TrainingState
    data: ValData
    context: RankContext
    observer: EvaluationObserver
    commits: Commits
    half: bool
    """Validate in fp16 (CUDA only)."""
    period: int | None = 1
    """Epochs from one validation to the next; None: only the last epoch is validated."""

    @property
    def progress(self) -> TrainingProgress:
        """Progress of the run."""
        return self.state.progress

    @property
    def _arguments(self) -> Any:
        return self.state.task.student_model.args

    @property
    def _environment(self) -> Environment:
        return self.data.environment

    def end_epoch(self) -> None:
        """Finish the current epoch on every rank. Raises Stopped on a stop request during validation."""
        losses = self.progress.mean_losses()
        epoch = self.progress.epochs_finished + 1
        validation = self._validate_student() if validates(epoch, self.plan.epochs, self.period) else None
        improved = validation is not None and self._record(validation)
        if self.progress.epochs_finished == 0:
            self.progress.first_distillation_loss = losses.get(DISTILLATION_LOSS)
        self.progress.finish_epoch()
        if validation is not None:
            self.progress.stopped_early = self.progress.out_of_patience(self._arguments.patience)
        records = self.observer.epoch_finished(losses, validation)
        if self._environment.is_main:
            self.context.watchdog.beat("checkpoint")
            self.commits.replace_files(lambda: self._weights(validation, improved) | records)

    def validate_best(self, figures: Figures | None) -> tuple[str, ValMetrics]:
        """Validate weights/best.pt on all ranks. Returns the file's digest (empty except on rank 0) and its metrics.

        `figures` collects the data for plots. Raises Stopped.
        """
        path = self.context.files.best
        model = deepcopy(self.state.ema.ema)
        state = load_tensors(path) if self._environment.is_main else None
        model.load_state_dict(broadcast_state(state, self._environment.device) or {})
        metrics = self._validate(model, figures)
        return file_sha256(path) if self._environment.is_main else "", metrics

    def _record(self, validation: ValMetrics) -> bool:
        """Update the progress with the result. Returns whether it is the best so far."""
        fitness = validation.fitness if math.isfinite(validation.fitness) else 0.0
        improved = self.progress.update_best(fitness)
        if improved:
            self.progress.student_map, self.progress.student_map50 = validation.map, validation.map50
        return improved

    def _weights(self, validation: ValMetrics | None, improved: bool) -> dict[Path, bytes]:
        if validation is None:
            return {}
        files, metrics = self.context.files, dict(validation.results)
        content = weights_bytes(self.state.ema.ema, train_args=vars(self._arguments), metrics=metrics)
        return dict.fromkeys([files.best, files.last] if improved else [files.last], content)

    def _validate_student(self) -> ValMetrics:
        broadcast_buffers(self.state.ema.ema)  # only rank 0, which has shard 0, updates running statistics
        return self._validate(self.state.ema.ema)

    def _validate(self, model: Any, figures: Figures | None = None) -> ValMetrics:
        return validate_with_telemetry(model, self.data, self.context, self.half, self.stop_during_validation, figures)

    def stop_during_validation(self) -> Stopped:
        """Finish the current commit on every rank, and return the error to raise."""
        self.observer.stopping()
        self.commits.wait()
        return Stopped(self.progress.step, self.commits.committed_step)


def validate_with_telemetry(
    model: Any,
    data: ValData,
    context: RankContext,
    half: bool,
    stop_error: Callable[[], Stopped],
    figures: Figures | None = None,
) -> ValMetrics:
    """Validate on all ranks, and update the rank's status, watchdog and metrics.

    On a stop request, raises what `stop_error` returns.
    """
    context.status.update(state="validating")
    context.watchdog.beat("validation")

    def stop_requested() -> bool:
        context.watchdog.beat("validation")
        return context.stop.requested

    started = time.perf_counter()
    try:
        return validate(model, data, half=half, stop=stop_requested, figures=figures)
    except Interrupted as interrupted:
        raise stop_error() from interrupted
    finally:
        context.metrics.phase("validation", time.perf_counter() - started)
