"""One run and its disturbances."""

from __future__ import annotations

import math
import random
import re
import signal
import time
from typing import Any

from benchmarks.chaos.local.disturbances import KINDS, Disturbance, send
from benchmarks.small_run import Attempt, Local
from testcluster.linux.processes import ProcessId

END_SECONDS = 90.0
"""Longer than any disturbed attempt takes to end."""


class Run:
    """One run with its disturbances."""

    def __init__(self, number: int, local: Local, draw: random.Random, seconds: float, steps: int) -> None:
        """`seconds` and `steps`: duration and steps of the undisturbed run."""
        self._number, self._local, self._draw, self._seconds, self._steps = number, local, draw, seconds, steps
        self.disturbances: list[Disturbance] = []
        self._reached = self._attempts = 0

    def go(self, kills: int, until: float = math.inf) -> None:
        """Disturb the run `kills` times, or until the time `until` (time.monotonic), then let it end.

        Raises RuntimeError if an attempt fails by itself.
        """
        while True:
            self._attempts += 1
            attempt = self._local.start(f"attempt-{self._attempts}")
            if len(self.disturbances) == kills or time.monotonic() > until:
                self._finish(attempt)
                return
            if self._disturb(attempt):
                return

    def _disturb(self, attempt: Attempt) -> bool:
        """Disturb one attempt. Returns whether the run is done."""
        kind = self._draw.choices(list(KINDS), [weight for weight, _, _ in KINDS.values()])[0]
        committed = (self._local.committed() or [0])[-1]
        ahead = self._seconds * (1 - committed / self._steps)
        # A short attempt mostly starts up, so half of the disturbances are timed from its first step.
        in_training = self._draw.random() < 0.5
        at = self._draw.uniform(0.2, ahead / 3 if in_training else max(self._seconds / 4, ahead))
        since = math.inf if in_training else attempt.began
        status: dict[str, Any] = {}
        while time.monotonic() - since < at and attempt.process.poll() is None:
            status = attempt.status() or status
            if status.get("progress", {}).get("step", 0) > status.get("resumedFromStep", math.inf):
                since = min(since, time.monotonic())
            time.sleep(0.05)
        if attempt.process.poll() is not None:
            self._record(attempt, status)
            if not self._done(attempt):
                raise RuntimeError(f"an attempt ended with {attempt.process.returncode} by itself: {_tail(attempt)}")
            return True
        status = attempt.status() or status
        _, act, ends = KINDS[kind]
        made = Disturbance(
            self._number,
            self._attempts,
            kind,
            round(time.monotonic() - attempt.began, 2),
            status.get("state", "starting"),
            _step(status),
        )
        processes = attempt.processes()
        began = time.monotonic()
        hit = act(attempt, self._local, self._draw)
        self.disturbances.append(made)
        if not ends or not hit:
            self._stop(attempt, status, made)
            return self._done(attempt)
        self._await(processes.union(hit), attempt, began)
        made.end_seconds = round(time.monotonic() - began, 2)
        self._record(attempt, status)
        message = attempt.message()
        made.ended = f"{message.reason} {attempt.process.wait()}" if message else f"killed {attempt.process.wait()}"
        return self._done(attempt)

    def _stop(self, attempt: Attempt, status: dict[str, Any], made: Disturbance) -> None:
        """Stop an attempt that survived its disturbance, because each attempt is disturbed only once."""
        time.sleep(self._draw.uniform(0, 2))
        began = time.monotonic()
        while not all(process.handles(signal.SIGTERM) for process in attempt.launcher()):
            if time.monotonic() - began > END_SECONDS:
                raise RuntimeError(f"a launcher does not handle SIGTERM: {_tail(attempt)}")
            time.sleep(0.05)  # SIGTERM would kill a launcher that has just started
        processes = attempt.processes()
        send(attempt.launcher(), signal.SIGTERM)
        self._await(processes, attempt, began)
        self._record(attempt, status)
        message = attempt.message()
        if message is None or message.outcome not in ("stopped", "done"):
            raise RuntimeError(f"{made} must not end the attempt, but did: {_tail(attempt)}")

    def _finish(self, attempt: Attempt) -> None:
        status: dict[str, Any] = {}
        deadline = time.monotonic() + 3 * self._seconds + END_SECONDS
        while attempt.process.poll() is None:
            if time.monotonic() > deadline:
                raise RuntimeError(f"an undisturbed attempt does not end: {_tail(attempt)}")
            status = attempt.status() or status
            time.sleep(0.2)
        self._record(attempt, status)
        if not self._done(attempt):
            raise RuntimeError(f"an undisturbed attempt ended with {attempt.process.returncode}: {_tail(attempt)}")

    def _await(self, processes: set[ProcessId], attempt: Attempt, began: float) -> None:
        while attempt.process.poll() is None or any(process.alive for process in processes):
            if time.monotonic() - began > END_SECONDS:
                left = [process for process in processes if process.alive]
                raise RuntimeError(f"a disturbed attempt does not end, {left} still run: {_tail(attempt)}")
            time.sleep(0.05)

    def _record(self, attempt: Attempt, status: dict[str, Any]) -> None:
        """Record the step from which the attempt resumed as a result of the disturbance before it."""
        message = attempt.message()
        resumed = message.resumed_from_step if message else None
        resumed = status.get("resumedFromStep") if resumed is None else resumed
        earlier = [made for made in self.disturbances if made.attempt < self._attempts]
        fallbacks = len(re.findall(r"trying the previous one", attempt.log_text()))
        if earlier:
            earlier[-1].fallbacks += fallbacks
        if resumed is not None:
            if earlier and earlier[-1].resumed_from is None:
                earlier[-1].resumed_from = resumed
                earlier[-1].lost_steps += max(0, self._reached - resumed)
            self._reached = resumed
        reached = [step for step in (_step(status), message.step if message else None) if step is not None]
        self._reached = max([self._reached, *reached])

    def _done(self, attempt: Attempt) -> bool:
        message = attempt.message()
        return message is not None and message.outcome == "done"


def _tail(attempt: Attempt) -> str:
    return "\n".join(attempt.log_text().splitlines()[-15:])


def _step(status: dict[str, Any]) -> int | None:
    step = status.get("progress", {}).get("step")
    return int(step) if step is not None and "resumedFromStep" in status else None
