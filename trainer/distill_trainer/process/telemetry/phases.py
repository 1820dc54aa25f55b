"""Where the time of a step goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Phases:
    """Seconds by phase, as the host sees them: on CUDA a phase ends when its work is queued, not when it is done."""

    def __init__(
        self,
        begun: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`begun` is called with the name of each phase that begins."""
        self._begun = begun
        self._clock = clock
        self.seconds: dict[str, float] = {}

    @contextmanager
    def measure(self, phase: str) -> Iterator[None]:
        """Add the time spent inside to `phase`."""
        self._begun(phase)
        started = self._clock()
        try:
            yield
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + self._clock() - started

    def take(self) -> dict[str, float]:
        """The seconds so far; starts again from zero."""
        seconds, self.seconds = self.seconds, {}
        return seconds
