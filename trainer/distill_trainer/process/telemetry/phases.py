"""Measures the time of a step by phase."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch


class Clock(Protocol):
    """Marks moments, and says how far apart they are."""

    def mark(self, stream: Any | None) -> Any:
        """This moment; on CUDA the one when `stream` (None: the current one) has done what is queued on it."""

    def seconds(self, start: Any, end: Any) -> float:
        """Seconds between two moments; waits for the second one."""


class HostClock:
    """The host's time."""

    def mark(self, _stream: Any | None) -> float:
        """Now."""
        return time.perf_counter()

    def seconds(self, start: float, end: float) -> float:
        """Seconds between two moments."""
        return end - start


class CudaClock:
    """The time at which a CUDA stream comes to a point."""

    def mark(self, stream: torch.cuda.Stream | None) -> torch.cuda.Event:
        """An event at the end of what is queued on the stream."""
        event = torch.cuda.Event(enable_timing=True)
        event.record(stream)
        return event

    def seconds(self, start: torch.cuda.Event, end: torch.cuda.Event) -> float:
        """Seconds between two events. The host waits for the second one."""
        end.synchronize()
        return start.elapsed_time(end) / 1000


class Span(NamedTuple):
    """A part of a phase."""

    phase: str
    start: Any
    end: Any


class PhaseTimes:
    """The times of a step, which on CUDA are known when the step is done."""

    def __init__(self, spans: Sequence[Span], clock: Clock) -> None:
        self._spans, self._clock = spans, clock

    def read(self) -> dict[str, float]:
        """Seconds by phase. On CUDA the host waits for the end of the step."""
        seconds: dict[str, float] = {}
        for span in self._spans:
            seconds[span.phase] = seconds.get(span.phase, 0.0) + self._clock.seconds(span.start, span.end)
        return seconds


class Phases:
    """Seconds by phase: the device's on CUDA, where a phase that waits for nothing takes no time; else the host's."""

    def __init__(self, on_start: Callable[[str], None] = lambda _: None, clock: Clock | None = None) -> None:
        """`on_start` is called with the name of each phase that starts."""
        self._on_start, self._clock = on_start, clock or HostClock()
        self._spans: list[Span] = []

    @classmethod
    def on(cls, device: torch.device, on_start: Callable[[str], None]) -> Phases:
        """Phases that the clock of `device` measures."""
        return cls(on_start, CudaClock() if device.type == "cuda" else HostClock())

    @contextmanager
    def measure(self, phase: str, stream: Any | None = None) -> Iterator[None]:
        """Add the time spent inside to `phase`; on CUDA that of `stream` or, if it is None, of the current one."""
        self._on_start(phase)
        start = self._clock.mark(stream)
        try:
            yield
        finally:
            self._spans.append(Span(phase, start, self._clock.mark(stream)))

    def take(self) -> PhaseTimes:
        """The times so far, to be read later; begin anew."""
        spans, self._spans = self._spans, []
        return PhaseTimes(spans, self._clock)

    def reset(self) -> dict[str, float]:
        """The seconds so far, by phase; begin anew."""
        return self.take().read()
