"""When progress is committed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch.distributed as dist

from distill_api.errors import Retryable
from distill_api.reasons import Reason
from distill_trainer.checkpoint.checkpointer import Checkpointer
from distill_trainer.checkpoint.interval import History, automatic
from distill_trainer.training.state import TrainingProgress, TrainingState


class Commits:
    """Commits the state about every interval, at the end of every epoch, and whenever it is asked to.

    Only rank 0's checkpointer writes; the other ranks never wait for it but in `commit_and_wait`.
    """

    def __init__(
        self,
        checkpointer: Checkpointer,
        state: TrainingState,
        interval: Callable[[], float],
        hung_after: float = float("inf"),
        spent: Callable[[float], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`interval` is asked for the seconds between commits. A commit that takes `hung_after` seconds will not end.

        `spent` is told the seconds that the training stood still, for each snapshot and each wait.
        """
        self._checkpointer, self._state, self._interval, self._clock = checkpointer, state, interval, clock
        self._hung_after = hung_after
        self._spent = spent
        self._last = clock()

    @property
    def committed_step(self) -> int:
        """Newest step that is safe, as far as this rank knows."""
        return self._checkpointer.committed_step

    def commit_if_due(self) -> None:
        """Start a commit if the interval is over and the previous commit is done.

        Raises Retryable(Stalled) when the previous one hangs: the training would go on with nothing of it safe.
        """
        if self._clock() - self._last < self._interval():
            return
        if not self._checkpointer.busy:
            self.commit()
        elif (seconds := self._checkpointer.in_flight_seconds) >= self._hung_after:
            raise Retryable(
                Reason.STALLED,
                f"rank 0 has waited {seconds:.0f} s in phase checkpoint for {self._checkpointer.directory} to store a "
                "commit; look at the checkpoints volume, or raise recovery.stallTimeoutSeconds if it is that slow",
            )

    def commit(self) -> None:
        """Take a snapshot now; a background process makes it durable."""
        with self._measured():
            self._checkpointer.snapshot(self._state.collect(), self._state.progress.step)
        self._last = self._clock()

    def commit_and_wait(self) -> None:
        """Return on every rank when this state is durable."""
        self.commit()
        self.wait()

    def wait(self) -> None:
        """Return on every rank when what is being committed is durable."""
        with self._measured():
            self._checkpointer.wait()
            if dist.is_initialized():
                dist.barrier()

    @contextmanager
    def _measured(self) -> Iterator[None]:
        began = self._clock()
        try:
            yield
        finally:
            self._spent(self._clock() - began)


def interval_of(
    asked: int | Literal["auto"],
    checkpointer: Checkpointer,
    progress: TrainingProgress,
    *,
    attempt: int,
    cpus: int,
    told: Callable[[float], None] = lambda _: None,
) -> Callable[[], float]:
    """Seconds between commits, as checkpoint.intervalSeconds asks; `told` hears of every change.

    auto: from what the last commit has cost, and how often the job has been disrupted so far. `cpus` share the writer
    process's work with the training; on accelerators it takes nothing from it, which is 0.
    """
    last: float | None = None

    def seconds() -> float:
        nonlocal last
        if asked == "auto":
            cost = checkpointer.cost
            spent = cost.stall_seconds + (cost.writer_cpu_seconds / cpus if cpus else 0.0) if cost else None
            now = automatic(spent, History(attempt - 1, progress.seconds))
        else:
            now = float(asked)
        if now != last:
            last = now
            told(now)
        return now

    return seconds
