"""Detects a stuck main thread: a collective without its peer, a hung file system, a dead data loader."""

import faulthandler
import math
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from distill_trainer.process.liveness.heartbeat import Heartbeat

RENDEZVOUS = "rendezvous"
"""The phase in which a rank waits for the other ranks. It has no work to lose yet."""
_RENDEZVOUS_STOPPING_SECONDS = 1.0
LEAVING_SECONDS = 2.0
"""How long a rank whose sibling has failed may stay in one phase after it was asked to stop."""

WaitsFor = Callable[[], str | None]
"""Says which collective this rank waits in; None for none, or if its own error will say so."""


def knows_nothing() -> None:
    """Of ranks whose collectives end by themselves."""


@dataclass(frozen=True)
class Stall:
    """The main thread has been stuck in `phase` for `seconds`; `stopping`: after a stop request."""

    phase: str
    seconds: float
    stopping: bool
    waiting: str | None = None
    """The collective in which it waits for other ranks, as far as is known."""


class Watchdog:
    """Calls `on_stall`, which must not return, after `timeout` seconds without a `beat`.

    After a stop request the timeout is `stopping_timeout` seconds, so that part of the pod's grace period is left for
    the report; it is LEAVING_SECONDS if `sibling_failed`. A rank that waits for others is stuck after
    `waiting_timeout`, so that it ends before the one that it waits for.
    """

    def __init__(
        self,
        *,
        timeout: float,
        stopping_timeout: float,
        stop_requested: Callable[[], bool],
        on_stall: Callable[[Stall], None],
        heartbeat: Heartbeat | None = None,
        waiting_timeout: float = math.inf,
        sibling_failed: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`heartbeat` shows the launcher the current phase, and about every second that this process runs."""
        self._timeout = timeout
        self._stopping_timeout = min(timeout, stopping_timeout)
        self._stop_requested = stop_requested
        self._on_stall = on_stall
        self._heartbeat = heartbeat
        self.waits_for: WaitsFor = knows_nothing
        self._waiting_timeout = waiting_timeout
        self._sibling_failed = sibling_failed
        self._clock = clock
        self._last = (clock(), "start")
        self._stopping_since: float | None = None
        self._ended = threading.Event()

    @property
    def phase(self) -> str:
        """The current phase of the main thread."""
        return self._last[1]

    @property
    def idle_seconds(self) -> float:
        """Seconds since the last beat."""
        return max(0.0, self._clock() - self._last[0])

    def beat(self, phase: str) -> None:
        """Report that the main thread makes progress and starts `phase`. Cheap enough for every phase of every step."""
        self._last = (self._clock(), phase)
        if self._heartbeat is not None:
            self._heartbeat.phase(phase)

    def check(self) -> Stall | None:
        """The current stall, or None."""
        now = self._clock()
        since, phase = self._last
        stopping = self._stop_requested()
        if stopping and self._stopping_since is None:
            self._stopping_since = now
        stuck = now - since
        waiting = self.waits_for() if stuck >= self._waiting_timeout else None
        if stuck >= self._timeout or waiting is not None:
            return Stall(phase, stuck, stopping, waiting)
        limit = self._stopping_timeout
        if phase == RENDEZVOUS:
            limit = min(_RENDEZVOUS_STOPPING_SECONDS, limit)
        if stopping and self._sibling_failed():
            limit = min(LEAVING_SECONDS, limit)
        if self._stopping_since is not None and now - max(since, self._stopping_since) >= limit:
            return Stall(phase, stuck, stopping)
        return None

    def start(self) -> None:
        """Start the watchdog thread."""
        self._last = (self._clock(), self._last[1])
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def end(self) -> None:
        """Stop checking; the heartbeat continues until the process ends."""
        self._ended.set()

    def _watch(self) -> None:
        interval = min(1.0, self._stopping_timeout / 4)
        while True:
            if self._heartbeat is not None:
                self._heartbeat.beat()
            time.sleep(interval)
            stall = None if self._ended.is_set() else self.check()
            if stall is not None:
                # The stacks cannot be recovered after the process has ended.
                faulthandler.dump_traceback(sys.stderr, all_threads=True)
                self._on_stall(stall)
                return
