"""Decides when the passes of each job run; a job never has two passes at the same time.

This replaces kopf's daemons, which put a finalizer on every job: a job could not be deleted while the operator is not
running. Any event about a job or its children only triggers a pass.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial

from distill_operator.controller.telemetry import logs
from distill_operator.kube.answers import ApiError
from distill_operator.kube.pod_cache import Key

LOG = logging.getLogger(__name__)

GAP_SECONDS = 0.2
"""Minimum time between passes of one job, so that a burst of events triggers one pass."""
RETRY_SECONDS = (1.0, 60.0)
"""First and longest delay after a failed pass; it doubles in between. Also the longest Retry-After that is honoured."""

Pass = Callable[[Key, bool], Awaitable[float | None]]
"""A pass over one job; the flag says whether to read everything. Returns seconds until the next one, or None."""


class WorkQueue:
    """Runs `run_pass` for jobs that were woken, at most `workers` at a time.

    `ended` is told how every pass ended that was not cancelled: the error, or None. A paused queue only remembers which
    jobs were woken.
    """

    def __init__(
        self, run_pass: Pass, workers: int, ended: Callable[[BaseException | None], None], *, paused: bool = False
    ) -> None:
        self._run_pass = run_pass
        self._slots = asyncio.Semaphore(workers)
        self._report = ended
        self._paused = paused
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._running: dict[Key, asyncio.Task[float | None]] = {}
        self._started: dict[Key, float] = {}
        self._fresh: set[Key] = set()
        self._again: set[Key] = set()
        self._ended: dict[Key, float] = {}
        self._errors: dict[Key, int] = {}
        self._not_before: dict[Key, float] = {}
        """Loop time until which the API server asked to be left alone."""

    def wake(self, key: Key, *, fresh: bool = True) -> None:
        """Run a pass soon. `fresh`: the job or its children changed, so the pass reads everything."""
        if fresh:
            self._fresh.add(key)
        if self._paused:
            return
        if key in self._running:
            self._again.add(key)
        else:
            since = time.monotonic() - self._ended.get(key, 0.0)
            self._schedule(key, max(0.0, GAP_SECONDS - since))

    def oldest_seconds(self) -> float:
        """How long the longest running pass has taken so far."""
        return max((time.monotonic() - started for started in self._started.values()), default=0.0)

    def resume(self) -> None:
        """Run passes again, first of all jobs that were woken or interrupted meanwhile."""
        self._paused = False
        for key in list(self._fresh):
            self.wake(key)

    async def pause(self) -> None:
        """Cancel timers and passes. Another process, or resume, completes what was interrupted."""
        self._paused = True
        self._fresh |= self._timers.keys() | self._running.keys()
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _schedule(self, key: Key, seconds: float) -> None:
        if self._paused:
            self._fresh.add(key)
            return
        loop = asyncio.get_running_loop()
        seconds = max(seconds, self._not_before.get(key, 0.0) - loop.time())
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= loop.time() + seconds:
                return
            timer.cancel()
        self._timers[key] = loop.call_later(seconds, self._start, key)

    def _start(self, key: Key) -> None:
        self._timers.pop(key, None)
        self._not_before.pop(key, None)
        fresh = key in self._fresh
        self._fresh.discard(key)
        task = asyncio.get_running_loop().create_task(self._pass(key, fresh))
        self._running[key] = task
        task.add_done_callback(partial(self._done, key))

    async def _pass(self, key: Key, fresh: bool) -> float | None:
        logs.about(key)
        async with self._slots:
            self._started[key] = time.monotonic()
            return await self._run_pass(key, fresh)

    def _done(self, key: Key, task: asyncio.Task[float | None]) -> None:
        del self._running[key]
        self._started.pop(key, None)
        if task.cancelled():
            self._again.discard(key)
            return
        self._report(task.exception())
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
        """Schedule a failed pass again. A Retry-After is waited for here, so that it holds no slot, and events do not
        shorten it."""
        count = self._errors.get(key, 0)
        self._errors[key] = count + 1
        first, longest = RETRY_SECONDS
        seconds = min(longest, first * 2.0 ** min(count, 30))
        asked = error.retry_after if isinstance(error, ApiError) else None
        if asked is not None:
            seconds = max(seconds, min(asked, longest))
            self._not_before[key] = asyncio.get_running_loop().time() + seconds
        job = {"job": "/".join(key)}
        # An answer of the API server says all itself; only an error of the operator's own needs its traceback.
        own = None if isinstance(error, ApiError) else error
        LOG.error("the pass over %s/%s failed: %s; next try in %.0f s", *key, error, seconds, exc_info=own, extra=job)
        self._again.discard(key)
        self._fresh.add(key)
        self._schedule(key, seconds)
