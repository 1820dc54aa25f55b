"""Runs a job, calmly or through a schedule of disruptions."""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable

from benchmarks.chaos.cluster.checks import Disruption, answers, complete
from benchmarks.chaos.cluster.disruptions import Kind, Scene, operator_is_ready
from benchmarks.chaos.cluster.testbed import STEPS_PER_EPOCH, Testbed
from benchmarks.chaos.cluster.watching import Seen

STEPS_BETWEEN = (6, 26)
"""Steps that are made after a recovery before the next disruption comes."""
SPARE_STEPS = 6
"""Per disruption: what is made while the operator restarts, and between a decision and its deed."""
RECOVERY_SECONDS = 240.0
"""Longer than any recovery takes on a busy machine."""


class Failed(Exception):
    """The job did not do what it should; the text says what was seen."""


def epochs_for(disruptions: int) -> int:
    """So many that the job does not end before its last disruption."""
    return -(-disruptions * (STEPS_BETWEEN[1] + SPARE_STEPS) // STEPS_PER_EPOCH) + 1


def wait(seen: Seen, until: Callable[[], bool], what: str, seconds: float = RECOVERY_SECONDS) -> None:
    """Wait until something is true. Raises Failed when the job has ended by then, or it takes too long."""
    deadline = time.monotonic() + seconds
    while not until():
        if seen.phase in ("Succeeded", "Failed"):
            raise Failed(f"the job is {seen.phase} instead of: {what}")
        if time.monotonic() > deadline:
            raise Failed(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.1)


def run_calmly(testbed: Testbed, name: str, epochs: int) -> float:
    """Run a job to its end and return the seconds that it took."""
    began = time.monotonic()
    with testbed.create(name, epochs, failures=0) as follower:
        await_success(follower.seen, 120 + 60 * epochs)
    return time.monotonic() - began


def await_success(seen: Seen, seconds: float) -> None:
    """Wait for the job's success. Raises Failed."""
    deadline = time.monotonic() + seconds
    while seen.phase != "Succeeded":
        if seen.phase == "Failed" or time.monotonic() > deadline:
            raise Failed(f"the job is {seen.phase}: {json.dumps(seen.job.get('status', {}).get('conditions'))}")
        time.sleep(0.2)


class Runner:
    """Disturbs a job."""

    def __init__(self, testbed: Testbed, seen: Seen, draw: random.Random) -> None:
        self._testbed, self._seen, self._draw = testbed, seen, draw
        self.made: list[Disruption] = []

    def disrupt(self, kind: Kind) -> Disruption:
        """Disturb the job once it has made some steps since the last time, and see it make steps again."""
        seen, attempt = self._seen, self._attempt()
        steps = self._draw.randint(*STEPS_BETWEEN)
        since = answers(seen, attempt)[-1].resumed_from or 0
        if self.made and self.made[-1].attempt == attempt:  # which has gone on
            since = self.made[-1].step
        wait(seen, lambda: self._in_training(attempt, since + steps), f"{steps} further steps of attempt {attempt}")
        newest = seen.newest
        assert newest is not None
        scene = Scene(self._testbed.cluster, seen, attempt, self._draw)
        made = Disruption(
            len(self.made) + 1, kind.name, attempt, time.time(), newest.step, sorted(kind.causes), scene.notes
        )
        self.made.append(made)
        kind.act(scene)
        made.causes = sorted(kind.causes | scene.excused) if kind.ends else []
        made.acted_seconds = round(time.time() - made.at, 2)
        if kind.ends:
            wait(seen, lambda: any(later > attempt for later in seen.stepped), f"steps after {kind.name}")
        else:
            wait(seen, lambda: operator_is_ready(self._testbed.cluster), "a ready operator")
            made.recovery_seconds = round(time.time() - made.at, 2)
        return made

    def _attempt(self) -> int:
        wait(self._seen, lambda: bool(self._seen.stepped), "first steps")
        return max(self._seen.stepped)

    def _in_training(self, attempt: int, step: int) -> bool:
        newest = self._seen.newest
        fresh = newest is not None and newest.attempt == attempt and newest.state == "training"
        return fresh and newest.step >= step and operator_is_ready(self._testbed.cluster)


def disturb(
    testbed: Testbed, name: str, epochs: int, kinds: list[Kind], draw: random.Random
) -> tuple[Seen, Runner, float]:
    """Run a job through a schedule of disruptions to its end. Returns when it was created, too."""
    began = time.time()
    with testbed.create(name, epochs, failures=len(kinds)) as follower:
        runner = Runner(testbed, follower.seen, draw)
        try:
            for kind in kinds:
                made = runner.disrupt(kind)
                after = f"again after {made.recovery_seconds or time.time() - made.at:.1f} s"
                print(f"{made.number:3} {kind.name} ({', '.join(made.notes)}) at step {made.step}: {after}", flush=True)
            await_success(follower.seen, RECOVERY_SECONDS + 2 * epochs * STEPS_PER_EPOCH)
            time.sleep(1)  # the last status
        except Failed:
            print(testbed.describe(), file=sys.stderr)
            raise
        finally:
            for made in runner.made:
                complete(made, follower.seen)
    return follower.seen, runner, began
