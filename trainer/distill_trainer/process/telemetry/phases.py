"""Measures the time of a step by phase."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Phases:
    """Host seconds by phase: on CUDA a phase ends when its work is queued, not when it is done."""

    def __init__(
        self,
        on_start: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`on_start` is called with the name of each phase that starts."""
        self._on_start = on_start
        self._clock = clock
        self.seconds: dict[str, float] = {}

    @contextmanager
    def measure(self, phase: str) -> Iterator[None]:
        """Add the time spent inside to `phase`."""
        self._on_start(phase)
        started = self._clock()
        try:
            yield
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + self._clock() - started

    def reset(self) -> dict[str, float]:
        """Return the seconds so far and reset them to zero."""
        seconds, self.seconds = self.seconds, {}
        return seconds
