"""Asks every rank 0 for its status, beside the passes: a pass only takes what was last answered.

A rank 0 that does not answer is asked less often and holds up nobody else. How long it has been silent is counted in
the time in which it was asked, so an operator that was away has seen nothing.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from distill_api.pod.report import TrainerStatus
from distill_operator.controller.rank0.client import NoAnswerError, Target
from distill_operator.kube.pod_cache import Key
from distill_operator.types.observed import SILENT_MISSES, Silence

LOG = logging.getLogger(__name__)

CONCURRENT = 64
"""Requests at a time."""
LONGEST_SECONDS = 15.0
"""Longest time between two requests to a silent rank 0; it doubles up to here."""
LONGEST_GAP_SECONDS = 2 * LONGEST_SECONDS
"""A longer time between two requests, such as while the operator's machine slept, does not count as silence."""
LEAST_SILENT = 3
"""As many silent jobs, if they are more than half of those that are asked, are a problem of the operator's network."""

Ask = Callable[[Target], Awaitable[TrainerStatus]]


@dataclass
class _Polled:
    """What asking one rank 0 has shown."""

    target: Target
    task: "asyncio.Task[None] | None" = None
    answer: TrainerStatus | None = None
    misses: int = 0
    silent_seconds: float = 0.0
    missed_at: float = 0.0
    why: str = ""


class Poller:
    """Keeps the last answer of each job's rank 0, and wakes a job when its answer has changed or is missing."""

    def __init__(
        self,
        ask: Ask,
        wake: Callable[[Key], None],
        period: float,
        count: Callable[[bool], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`ask` raises NoAnswerError. `period`: seconds between requests. `count` is told of each answer or miss."""
        self._ask = ask
        self._wake = wake
        self._period = period
        self._count = count
        self._clock = clock
        self._slots = asyncio.Semaphore(CONCURRENT)
        self._polled: dict[Key, _Polled] = {}

    def watch(self, key: Key, target: Target | None) -> None:
        """Ask this rank 0 from now on, and no other one of the job; None: ask none."""
        present = self._polled.get(key)
        if present is not None and present.target == target:
            return
        if present is not None:
            self._forget(key)
        if target is not None:
            polled = _Polled(target)
            polled.task = asyncio.get_running_loop().create_task(self._poll(key, polled))
            self._polled[key] = polled

    def answer(self, key: Key) -> TrainerStatus | None:
        """Rank 0's last status; None if it did not answer the last request."""
        polled = self._polled.get(key)
        return polled.answer if polled is not None and polled.misses == 0 else None

    def silence(self, key: Key) -> Silence | None:
        """What the missing answers show; None while rank 0 answers or is not asked."""
        polled = self._polled.get(key)
        if polled is None or polled.misses == 0:
            return None
        return Silence(polled.misses, polled.silent_seconds, polled.why, self._widespread())

    def silent_jobs(self) -> int:
        """Jobs whose rank 0 has not answered several requests in a row."""
        return sum(polled.misses >= SILENT_MISSES for polled in self._polled.values())

    async def stop(self) -> None:
        """Stop asking."""
        tasks = [polled.task for polled in self._polled.values() if polled.task is not None]
        for key in list(self._polled):
            self._forget(key)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _forget(self, key: Key) -> None:
        polled = self._polled.pop(key)
        if polled.task is not None:
            polled.task.cancel()

    def _widespread(self) -> bool:
        silent = self.silent_jobs()
        return silent >= LEAST_SILENT and 2 * silent > len(self._polled)

    async def _poll(self, key: Key, polled: _Polled) -> None:
        while True:
            async with self._slots:
                changed = await self._request(polled)
            self._count(polled.misses == 0)
            if changed:
                self._wake(key)
            await asyncio.sleep(min(self._period * 2.0 ** min(polled.misses, 8), max(LONGEST_SECONDS, self._period)))

    async def _request(self, polled: _Polled) -> bool:
        """Ask once. Returns whether the job should know of the answer, or of its lack."""
        try:
            answer = await self._ask(polled.target)
        except NoAnswerError as error:
            self._missed(polled, str(error))
            return True
        except Exception as error:  # the next request is made whatever this one has shown
            LOG.exception("the request to %s failed", polled.target.ip)
            self._missed(polled, type(error).__name__)
            return True
        changed = polled.misses > 0 or _content(answer) != _content(polled.answer)
        polled.answer, polled.misses, polled.silent_seconds = answer, 0, 0.0
        return changed

    def _missed(self, polled: _Polled, why: str) -> None:
        now = self._clock()
        gap = now - polled.missed_at
        if polled.misses > 0 and gap <= max(LONGEST_GAP_SECONDS, 2 * self._period) and not self._widespread():
            polled.silent_seconds += gap
        polled.misses, polled.missed_at, polled.why = polled.misses + 1, now, why


def _content(answer: TrainerStatus | None) -> TrainerStatus | None:
    """The answer without what changes all the time."""
    return answer.model_copy(update={"idle_seconds": 0.0, "seconds": None}) if answer is not None else None
