"""Divides a rank's time into kinds for the operator's goodput; each second counts once."""

import time
from collections.abc import Callable

from distill_api.pod.report import RankSeconds, State

KINDS: dict[State, str] = {
    "starting": "starting",
    "training": "training",
    "validating": "validation",
    "committing": "checkpoint",
    "finishing": "validation",
    "stopping": "checkpoint",
    "done": "checkpoint",
}
"""The kind of time spent in a state. Training time before the first step counts as starting."""
MAX_STEP_RATIO = 2.0
"""An unfinished step counts as training for at most this many times the longest step so far: then it hangs."""


class TimeAccounting:
    """Accumulates seconds by kind. Not thread-safe."""

    def __init__(self, stalled: Callable[[], float], clock: Callable[[], float] = time.monotonic) -> None:
        """`stalled` returns the seconds so far that checkpoints blocked training, in any state."""
        self._stalled, self._clock = stalled, clock
        self._seconds = dict.fromkeys(RankSeconds.model_fields, 0.0)
        self._kind = "starting"
        self._since, self._stalled_before = clock(), stalled()
        self._longest_step = 0.0
        self._stepped = False

    def enter(self, state: State) -> None:
        """The rank enters a state."""
        self._add(*self._open())
        kind = KINDS[state]
        self._kind = "starting" if kind == "training" and not self._stepped else kind

    def step(self) -> None:
        """A step is finished."""
        seconds = self._clock() - self._since
        if self._stepped:
            self._longest_step = max(self._longest_step, seconds)
        stall = self._stall(seconds)
        self._add(seconds - stall, stall)
        self._stepped, self._kind = True, "training"

    def seconds(self) -> RankSeconds:
        """Seconds by kind up to now."""
        own, stall = self._open()
        values = dict(self._seconds)
        values["checkpoint"] += stall
        values[self._kind] += own
        return RankSeconds(**{kind: round(value, 3) for kind, value in values.items()})

    def _open(self) -> tuple[float, float]:
        """Seconds of the current kind and of stalls that are not added yet. A stall is no part of a step that hangs."""
        seconds = self._clock() - self._since
        stall = self._stall(seconds)
        own = seconds - stall
        return (min(own, MAX_STEP_RATIO * self._longest_step) if self._kind == "training" else own), stall

    def _stall(self, seconds: float) -> float:
        return min(max(0.0, self._stalled() - self._stalled_before), seconds)

    def _add(self, own: float, stall: float) -> None:
        self._seconds["checkpoint"] += stall
        self._seconds[self._kind] += own
        self._since, self._stalled_before = self._clock(), self._stalled()
