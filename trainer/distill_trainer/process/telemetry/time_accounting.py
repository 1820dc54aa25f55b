"""Where a rank's time goes, as it is told to the operator: each second is booked once."""

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
"""What the time in a state is; what precedes the first step is a start."""
PATIENCE = 2.0
"""An unfinished step counts until it has taken this many times as long as the longest before it: then it hangs."""


class TimeAccounting:
    """Books time by kind. Not thread-safe."""

    def __init__(self, stalled: Callable[[], float], clock: Callable[[], float] = time.monotonic) -> None:
        """`stalled`: seconds so far that training stood still for checkpoints, in whatever state."""
        self._stalled, self._clock = stalled, clock
        self._booked = dict.fromkeys(RankSeconds.model_fields, 0.0)
        self._kind = "starting"
        self._since, self._stalled_before = clock(), stalled()
        self._longest_step = 0.0
        self._stepped = False

    def enter(self, state: State) -> None:
        """The rank is in this state from now on."""
        self._book(self._open_seconds())
        kind = KINDS[state]
        self._kind = "starting" if kind == "training" and not self._stepped else kind

    def step(self) -> None:
        """A step is finished."""
        seconds = self._clock() - self._since
        if self._stepped:
            self._longest_step = max(self._longest_step, seconds)
        self._book(seconds)
        self._stepped, self._kind = True, "training"

    def seconds(self) -> RankSeconds:
        """What is booked, and the time since, which is not booked yet."""
        stall = self._stall(self._open_seconds())
        values = dict(self._booked)
        values["checkpoint"] += stall
        values[self._kind] += self._open_seconds() - stall
        return RankSeconds(**{kind: round(value, 3) for kind, value in values.items()})

    def _open_seconds(self) -> float:
        seconds = self._clock() - self._since
        return min(seconds, PATIENCE * self._longest_step) if self._kind == "training" else seconds

    def _stall(self, seconds: float) -> float:
        return min(max(0.0, self._stalled() - self._stalled_before), seconds)

    def _book(self, seconds: float) -> None:
        stall = self._stall(seconds)
        self._booked["checkpoint"] += stall
        self._booked[self._kind] += seconds - stall
        self._since, self._stalled_before = self._clock(), self._stalled()
