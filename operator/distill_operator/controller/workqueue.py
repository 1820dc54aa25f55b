"""Decides when the passes of each job run; a job never has two passes at the same time.

This replaces kopf's daemons, which put a finalizer on every job: a job could not be deleted while the operator is not
running. Any event about a job or its children only triggers a pass.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial

from distill_operator.kube.pod_cache import Key

LOG = logging.getLogger(__name__)

GAP_SECONDS = 0.2
"""Minimum time between passes of one job, so that a burst of events triggers one pass."""
RETRY_SECONDS = (1.0, 60.0)
"""First and longest delay after a failed pass; it doubles in between."""

Pass = Callable[[Key, bool], Awaitable[float | None]]
"""A pass over one job; the flag says whether to read everything. Returns seconds until the next one, or None."""


class WorkQueue:
    """Runs `run_pass` for jobs that were woken, at most `workers` at a time."""

    def __init__(self, run_pass: Pass, workers: int, failed: Callable[[], None]) -> None:
        self._run_pass = run_pass
        self._slots = asyncio.Semaphore(workers)
        self._failed = failed
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._running: dict[Key, asyncio.Task[float | None]] = {}
        self._started: dict[Key, float] = {}
        self._fresh: set[Key] = set()
        self._again: set[Key] = set()
        self._ended: dict[Key, float] = {}
        self._errors: dict[Key, int] = {}

    def wake(self, key: Key) -> None:
        """The job or its children changed: run a pass that reads everything, soon."""
        self._fresh.add(key)
        if key in self._running:
            self._again.add(key)
        else:
            since = time.monotonic() - self._ended.get(key, 0.0)
            self._schedule(key, max(0.0, GAP_SECONDS - since))

    def oldest_seconds(self) -> float:
        """How long the longest running pass has taken so far."""
        return max((time.monotonic() - started for started in self._started.values()), default=0.0)

    async def stop(self) -> None:
        """Cancel timers and passes. The next process completes what was interrupted."""
        for timer in self._timers.values():
            timer.cancel()
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    def _schedule(self, key: Key, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= loop.time() + seconds:
                return
            timer.cancel()
        self._timers[key] = loop.call_later(seconds, self._start, key)

    def _start(self, key: Key) -> None:
        self._timers.pop(key, None)
        fresh = key in self._fresh
        self._fresh.discard(key)
        task = asyncio.get_running_loop().create_task(self._pass(key, fresh))
        self._running[key] = task
        task.add_done_callback(partial(self._done, key))

    async def _pass(self, key: Key, fresh: bool) -> float | None:
        async with self._slots:
            self._started[key] = time.monotonic()
            return await self._run_pass(key, fresh)

    def _done(self, key: Key, task: asyncio.Task[float | None]) -> None:
        del self._running[key]
        self._started.pop(key, None)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            self._retry(key, error)
            return
        self._errors.pop(key, None)
        again, after = key in self._again, task.result()
        self._again.discard(key)
        if again or after is not None:
            self._ended[key] = time.monotonic()
            self._schedule(key, GAP_SECONDS if again else max(after or 0.0, GAP_SECONDS))
        else:
            self._ended.pop(key, None)

    def _retry(self, key: Key, error: BaseException) -> None:
        count = self._errors.get(key, 0)
        self._errors[key] = count + 1
        first, longest = RETRY_SECONDS
        seconds = min(longest, first * 2.0**count)
        LOG.error("the pass over %s/%s failed; next try in %.0f s", *key, seconds, exc_info=error)
        self._failed()
        self._again.discard(key)
        self._fresh.add(key)
        self._schedule(key, seconds)
