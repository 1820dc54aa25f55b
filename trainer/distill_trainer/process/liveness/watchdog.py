"""Notices that the main thread no longer moves: a collective whose peer is gone, a hung file system, a dead loader."""

import faulthandler
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from distill_trainer.process.liveness.heartbeat import Heartbeat

MEETING = "meeting the other ranks"
"""The phase in which a rank waits for the others' processes. It has nothing to lose yet."""
_MEETING_SECONDS = 1.0


@dataclass(frozen=True)
class Stall:
    """The main thread has not moved for `seconds` in `phase`; `stopping` when a stop had been asked for."""

    phase: str
    seconds: float
    stopping: bool


class Watchdog:
    """Calls `on_stall`, which does not return, when no `beat` came for `timeout` seconds.

    Once a stop is asked for only `stopping_timeout` seconds are allowed, so that something of the pod's grace period
    is left to report.
    """

    def __init__(
        self,
        *,
        timeout: float,
        stopping_timeout: float,
        stop_requested: Callable[[], bool],
        on_stall: Callable[[Stall], None],
        heartbeat: Heartbeat | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`heartbeat` tells the launcher of every phase, and about every second that this process runs at all."""
        self._timeout = timeout
        self._stopping_timeout = min(timeout, stopping_timeout)
        self._stop_requested = stop_requested
        self._on_stall = on_stall
        self._heartbeat = heartbeat
        self._clock = clock
        self._last = (clock(), "start")
        self._stop_seen: float | None = None
        self._ended = threading.Event()

    @property
    def phase(self) -> str:
        """What the main thread said last that it would do."""
        return self._last[1]

    @property
    def moved_at(self) -> datetime:
        """When the main thread moved last."""
        return datetime.now(UTC) - timedelta(seconds=self._clock() - self._last[0])

    def beat(self, phase: str) -> None:
        """Say that the main thread moves and goes on to `phase`. Cheap enough for every part of every step."""
        self._last = (self._clock(), phase)
        if self._heartbeat is not None:
            self._heartbeat.phase(phase)

    def check(self) -> Stall | None:
        """The stall, if there is one now."""
        now = self._clock()
        since, phase = self._last
        stopping = self._stop_requested()
        if stopping and self._stop_seen is None:
            self._stop_seen = now
        still = now - since
        if still >= self._timeout:
            return Stall(phase, still, stopping)
        patience = self._stopping_timeout if phase != MEETING else min(_MEETING_SECONDS, self._stopping_timeout)
        if self._stop_seen is not None and now - max(since, self._stop_seen) >= patience:
            return Stall(phase, still, stopping)
        return None

    def start(self) -> None:
        """Watch from a thread, as of now."""
        self._last = (self._clock(), self._last[1])
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def end(self) -> None:
        """Stop watching; the heartbeat goes on to the end of the process."""
        self._ended.set()

    def _watch(self) -> None:
        interval = min(1.0, self._stopping_timeout / 4)
        while True:
            if self._heartbeat is not None:
                self._heartbeat.beat()
            time.sleep(interval)
            stall = None if self._ended.is_set() else self.check()
            if stall is not None:
                # What every thread does is the one thing that cannot be found out later.
                faulthandler.dump_traceback(sys.stderr, all_threads=True)
                self._on_stall(stall)
                return
