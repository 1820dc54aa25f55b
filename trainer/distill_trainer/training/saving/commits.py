"""Decides when checkpoints are committed, and in which order with the weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch.distributed as dist

from distill_api.errors import Retryable
from distill_api.reasons import Reason
from distill_trainer.checkpoint.checkpointer import Checkpointer
from distill_trainer.checkpoint.interval import History, auto_interval
from distill_trainer.training.saving.state import TrainingProgress, TrainingState


class Commits:
    """Commits the state on request and, when `due`, about once per interval.

    Only rank 0's checkpointer writes. Other ranks wait for it only in `wait` and `commit_and_wait`.
    """

    def __init__(
        self,
        checkpointer: Checkpointer,
        state: TrainingState,
        interval: Callable[[], float],
        hung_after: float = float("inf"),
        on_blocked: Callable[[float], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`interval` returns the seconds between commits. A commit that takes `hung_after` seconds counts as hung.

        `on_blocked` is called with the seconds that each snapshot, file and wait blocked training.
        """
        self._checkpointer, self._state, self._interval, self._clock = checkpointer, state, interval, clock
        self._hung_after = hung_after
        self._on_blocked = on_blocked
        self._last = clock()

    @property
    def committed_step(self) -> int:
        """Newest committed step known to this rank."""
        return self._checkpointer.committed_step

    def due(self) -> bool:
        """Whether the interval has passed and the previous commit is done. Not the same on all ranks.

        Raises Retryable(Stalled) if the previous commit hangs, because further progress could not be committed.
        """
        if self._clock() - self._last < self._interval():
            return False
        if not self._checkpointer.busy:
            return True
        if (seconds := self._checkpointer.pending_seconds) >= self._hung_after:
            raise Retryable(
                Reason.STALLED,
                f"rank 0 has waited {seconds:.0f} s in phase checkpoint for a commit to "
                f"{self._checkpointer.directory}; check the checkpoints volume, or raise "
                "recovery.stallTimeoutSeconds if the volume is that slow",
            )
        return False

    def commit(self) -> None:
        """Take a snapshot and start committing it in the background."""
        with self._measured():
            self._checkpointer.snapshot(self._state.collect(), self._state.progress.step)
        self._last = self._clock()

    def replace_files(self, files: Callable[[], Mapping[Path, bytes]]) -> None:
        """On rank 0, replace each file that `files` returns, in the background and before any later commit.

        So a checkpoint whose progress tells of these files is never durable without them. Raises the error of the
        previous commit or files.
        """
        with self._measured():
            self._checkpointer.replace_files(files())

    def commit_and_wait(self) -> None:
        """Commit the state, and wait on every rank until rank 0 has committed it."""
        self.commit()
        self.wait()

    def wait(self) -> None:
        """Wait on every rank until rank 0's current commit is done."""
        with self._measured():
            self._checkpointer.wait()
            if dist.is_initialized():
                dist.barrier()

    @contextmanager
    def _measured(self) -> Iterator[None]:
        started = self._clock()
        try:
            yield
        finally:
            self._on_blocked(self._clock() - started)


def commit_interval(
    interval_seconds: int | Literal["auto"],
    checkpointer: Checkpointer,
    progress: TrainingProgress,
    *,
    attempt: int,
    cpus: int,
    on_change: Callable[[float], None] = lambda _: None,
) -> Callable[[], float]:
    """A function that returns the seconds between commits for checkpoint.intervalSeconds.

    auto: computed from the cost of the last commit and the job's disruptions so far. `cpus`: CPUs for which training
    and the writer process compete; 0 when training on accelerators. `on_change` is called with every new interval.
    """
    last: float | None = None

    def seconds() -> float:
        nonlocal last
        if interval_seconds == "auto":
            cost = checkpointer.cost
            lost = cost.stall_seconds + (cost.writer_cpu_seconds / cpus if cpus else 0.0) if cost else None
            now = auto_interval(lost, History(attempt - 1, progress.seconds))
        else:
            now = float(interval_seconds)
        if now != last:
            last = now
            on_change(now)
        return now

    return seconds
