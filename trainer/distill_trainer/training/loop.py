"""The training loop: epochs of steps, commits in between, an end of each epoch, and three ways out of it."""

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
"""More non-finite steps in a row than fp16's loss scale ever needs to settle."""


class Batches(Protocol):
    """The data side: this rank's shard batches for a range of global steps."""

    def batches(self, start_step: int, end_step: int) -> Generator[list[dict[str, Any]], None, None]: ...


class Observer(Protocol):
    """Who is told of each step: metrics, status, console."""

    def epoch_began(self, epoch: int) -> None: ...

    def stepped(
        self, progress: TrainingProgress, result: StepResult, seconds: float, phases: dict[str, float]
    ) -> None: ...

    def committing(self) -> None: ...

    def stopping(self) -> None: ...


@dataclass(frozen=True)
class Loop:
    """Runs a plan from wherever its progress is."""

    plan: TrainingPlan
    step: Step
    data: Batches
    commits: Commits
    observer: Observer
    end_epoch: Callable[[], None]
    """Validates, saves the best weights, and finishes the epoch in the progress."""
    stop: StopFlag
    beat: Callable[[str], None]
    """Called with what the loop does next, whenever it moves."""

    @property
    def progress(self) -> TrainingProgress:
        """How far the run is."""
        return self.step.state.progress

    def run(self) -> None:
        """Train to the end, committed. Raises Stopped when asked to stop, Retryable when the losses stay non-finite."""
        with closing(self.data.batches(self.progress.step, self.plan.total_steps)) as batches:
            while self.progress.epochs_finished < self.plan.epochs and not self.progress.stopped_early:
                epoch = self.progress.epochs_finished
                self.step.begin_epoch(epoch)
                self.observer.epoch_began(epoch)
                self._steps_until((epoch + 1) * self.plan.steps_per_epoch, batches)
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
            self.observer.stepped(progress, result, seconds, phases.take())
            if result.optimizer_stepped and not result.skipped:  # nothing is half accumulated, nothing is in doubt
                self._commit(result.stop, last_of_epoch=self.step.ends_accumulation(step, end))

    def _commit(self, stop: bool, last_of_epoch: bool) -> None:
        self.beat("checkpoint")
        if stop:
            self.observer.stopping()
            self.commits.commit_and_wait()
            raise Stopped(self.progress.step, self.commits.committed_step)
        if last_of_epoch:  # so that a validation may be interrupted
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
                f"gradients were not finite in {MAX_SKIPPED_STEPS} steps in a row, the last one step "
                f"{self.progress.step} ({losses}); lower training.lr0 or choose training.amp: bf16 or fp32",
            )
