"""When progress is committed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch.distributed as dist

from distill_trainer.checkpoint.checkpointer import Checkpointer
from distill_trainer.state import TrainingState


class Commits:
    """Commits the state about every `interval` seconds, at the end of every epoch, and whenever it is asked to.

    Only rank 0's checkpointer writes; the other ranks never wait for it but in `commit_and_wait`.
    """

    def __init__(
        self,
        checkpointer: Checkpointer,
        state: TrainingState,
        interval: float,
        spent: Callable[[float], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`spent` is told the seconds that the training stood still, for each snapshot and each wait."""
        self._checkpointer, self._state, self._interval, self._clock = checkpointer, state, interval, clock
        self._spent = spent
        self._last = clock()

    @property
    def committed_step(self) -> int:
        """Newest step that is safe, as far as this rank knows."""
        return self._checkpointer.committed_step

    def commit_if_due(self) -> None:
        """Start a commit if the interval is over and the previous commit is done."""
        if self._clock() - self._last >= self._interval and not self._checkpointer.busy:
            self.commit()

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
