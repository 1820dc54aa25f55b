"""The training loop: epochs of steps, with commits between steps and validation at the end of each epoch."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Protocol

from distill_api.errors import Retryable, Stopped
from distill_api.reasons import Reason
from distill_trainer.process.liveness.stop import StopFlag
from distill_trainer.process.telemetry.phases import Phases
from distill_trainer.training.device.results import Results, StepResult
from distill_trainer.training.device.upload import Uploads
from distill_trainer.training.optimizer import TrainingPlan
from distill_trainer.training.saving.commits import Commits
from distill_trainer.training.saving.state import TrainingProgress
from distill_trainer.training.step import Step

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


class Stopwatch:
    """Seconds from one step's result to the next."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Leave out what has happened since the last lap."""
        self._since = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last lap or restart."""
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        return seconds


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
    stopwatch: Stopwatch = field(default_factory=Stopwatch)

    @property
    def progress(self) -> TrainingProgress:
        """Progress of the run."""
        return self.step.state.progress

    def run(self) -> None:
        """Train to the end and commit. Raises Stopped on a stop request, and Retryable if losses stay non-finite."""
        self._end_unlabelled()
        step, results = self.progress.step, Results(self.step.late, self._finish_step)
        with closing(self.data.batches(step, self.plan.total_steps)) as batches:
            uploads = Uploads(batches, self.step.preprocess, step, ahead=self.step.late)
            while self.progress.epochs_finished < self.plan.epochs and not self.progress.stopped_early:
                epoch = self.progress.epochs_finished
                self.step.begin_epoch(epoch)
                self.observer.epoch_started(epoch)
                self._steps_until((epoch + 1) * self.plan.steps_per_epoch, uploads, results)
                self.step.end_epoch()
                self._end_unlabelled()
                self.end_epoch()
        self.beat("checkpoint")
        self.observer.committing()
        self.commits.commit_and_wait()

    def _steps_until(self, end: int, uploads: Uploads, results: Results) -> None:
        """Train until `end` steps are finished, and all their results are read."""
        phases = Phases.on(self.step.preprocess.device, self.beat)
        self.stopwatch.restart()
        for step in range(self.progress.step, end):
            with phases.measure("data"):
                batches = uploads.take()
            pending = self.step.run(step, batches, self.stop.requested, phases)
            with phases.measure("data"):
                uploads.load_next()
            result = results.add(pending, phases.take())
            if pending.optimizer_stepped:  # no gradients are accumulated
                if last := self.step.ends_accumulation(step, end):
                    result = results.drain()
                self._check_skipped(result)
                self._commit(results, stop=result is not None and result.stop, last_of_epoch=last)
        results.drain()

    def _finish_step(self, result: StepResult, phases: dict[str, float]) -> None:
        seconds = self.stopwatch.lap()
        self.progress.finish_step(result.losses, seconds)
        if result.optimizer_stepped:
            self.progress.skipped_in_a_row = self.progress.skipped_in_a_row + 1 if result.skipped else 0
        self.observer.step_finished(self.progress, result, seconds, phases)

    def _end_unlabelled(self) -> None:
        if self.progress.distillation_ended:
            self.data.end_unlabelled(self.progress.step)

    def _commit(self, results: Results, stop: bool, last_of_epoch: bool) -> None:
        """Commit if there is a reason to. The state is that of the newest step: its result has to be read before, and
        must not be that of non-finite gradients.
        """
        self.beat("checkpoint")
        if not (stop or last_of_epoch or self.commits.due()):
            return
        newest = results.drain()
        if newest is None or newest.skipped:
            return
        if stop:
            self.observer.stopping()
            self.commits.commit_and_wait()
            raise Stopped(self.progress.step, self.commits.committed_step)
        self.commits.commit()  # at the end of an epoch, so that a stop during validation loses no step
        self.stopwatch.restart()

    def _check_skipped(self, result: StepResult | None) -> None:
        """Raise Retryable after too many skipped steps; on every rank at the same step."""
        if result is not None and self.progress.skipped_in_a_row >= MAX_SKIPPED_STEPS:
            losses = ", ".join(f"{name} {value:.3g}" for name, value in result.losses.items())
            raise Retryable(
                Reason.TRAINER_ERROR,
                f"gradients were not finite in {MAX_SKIPPED_STEPS} consecutive steps up to step {self.progress.step} "
                f"({losses}); lower training.lr0, or set training.amp to bf16 or fp32",
            )
