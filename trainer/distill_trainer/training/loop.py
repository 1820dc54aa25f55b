"""The training loop: epochs of steps, with commits between steps and validation at the end of each epoch."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

from distill_api.errors import Retryable, Stopped
from distill_api.reasons import Reason
from distill_trainer.process.liveness.stop import StopFlag
from distill_trainer.process.telemetry.phases import Phases
from distill_trainer.training.commits import Commits
from distill_trainer.training.optimizer import TrainingPlan
from distill_trainer.training.state import TrainingProgress
from distill_trainer.training.step import Step, StepResult

MAX_SKIPPED_STEPS = 20
"""Training fails after this many consecutive non-finite steps, more than fp16's loss scale needs to adapt."""


class Batches(Protocol):
    """Provides this rank's shard batches for a range of global steps."""

    def batches(self, start_step: int, end_step: int) -> Generator[list[dict[str, Any]], None, None]: ...

    def end_unlabelled(self, step: int) -> None: ...


class Observer(Protocol):
    """Callbacks for the events of the loop."""

    def epoch_started(self, epoch: int) -> None: ...

    def step_finished(
        self, progress: TrainingProgress, result: StepResult, seconds: float, phases: dict[str, float]
    ) -> None: ...

    def committing(self) -> None: ...

    def stopping(self) -> None: ...


@dataclass(frozen=True)
class Loop:
    """Trains from the current progress to the end of the plan."""

    plan: TrainingPlan
    step: Step
    data: Batches
    commits: Commits
    observer: Observer
    end_epoch: Callable[[], None]
    """Validates, saves the weights, and updates the progress."""
    stop: StopFlag
    beat: Callable[[str], None]
    """The watchdog's `beat`, called with the name of each phase that starts."""

    @property
    def progress(self) -> TrainingProgress:
        """Progress of the run."""
        return self.step.state.progress

    def run(self) -> None:
        """Train to the end and commit. Raises Stopped on a stop request, and Retryable if losses stay non-finite."""
        self._end_unlabelled()
        with closing(self.data.batches(self.progress.step, self.plan.total_steps)) as batches:
            while self.progress.epochs_finished < self.plan.epochs and not self.progress.stopped_early:
                epoch = self.progress.epochs_finished
                self.step.begin_epoch(epoch)
                self.observer.epoch_started(epoch)
                self._steps_until((epoch + 1) * self.plan.steps_per_epoch, batches)
                self.step.end_epoch()
                self._end_unlabelled()
                self.end_epoch()
        self.beat("checkpoint")
        self.observer.committing()
        self.commits.commit_and_wait()

    def _steps_until(self, end: int, batches: Iterator[list[dict[str, Any]]]) -> None:
        progress, phases = self.progress, Phases(self.beat)
        while progress.step < end:
            started = time.perf_counter()
            with phases.measure("data"):
                shard_batches = next(batches)
            step = progress.step
            result = self.step.run(step, shard_batches, self.stop.requested, phases)
            seconds = time.perf_counter() - started
            progress.finish_step(result.losses, seconds)
            self._count_skipped(result)
            self.observer.step_finished(progress, result, seconds, phases.reset())
            if result.optimizer_stepped and not result.skipped:  # no gradients are accumulated, none were non-finite
                self._commit(result.stop, last_of_epoch=self.step.ends_accumulation(step, end))

    def _end_unlabelled(self) -> None:
        if self.progress.distillation_ended:
            self.data.end_unlabelled(self.progress.step)

    def _commit(self, stop: bool, last_of_epoch: bool) -> None:
        self.beat("checkpoint")
        if stop:
            self.observer.stopping()
            self.commits.commit_and_wait()
            raise Stopped(self.progress.step, self.commits.committed_step)
        if last_of_epoch:  # so that a stop during validation loses no step
            self.commits.commit()
        else:
            self.commits.commit_if_due()

    def _count_skipped(self, result: StepResult) -> None:
        if not result.optimizer_stepped:
            return
        self.progress.skipped_in_a_row = self.progress.skipped_in_a_row + 1 if result.skipped else 0
        if self.progress.skipped_in_a_row >= MAX_SKIPPED_STEPS:
            losses = ", ".join(f"{name} {value:.3g}" for name, value in result.losses.items())
            raise Retryable(
                Reason.TRAINER_ERROR,
                f"gradients were not finite in {MAX_SKIPPED_STEPS} consecutive steps up to step {self.progress.step} "
                f"({losses}); lower training.lr0, or set training.amp to bf16 or fp32",
            )
