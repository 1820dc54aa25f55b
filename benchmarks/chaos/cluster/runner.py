"""Runs a job undisturbed, or with a schedule of disruptions."""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.chaos.cluster.checks import Disruption, answers, complete
from benchmarks.chaos.cluster.disruptions import Kind, Scene, serving_operator
from benchmarks.chaos.cluster.testbed import STEPS_PER_EPOCH, Testbed
from benchmarks.chaos.cluster.watching import Follower, Seen

STEPS_BETWEEN = (6, 26)
"""Range of the number of steps between a recovery and the next disruption."""
RECOVERY_SECONDS = 240.0
"""Longer than any recovery takes on a busy machine."""


class Failed(Exception):
    """The job did not behave as expected; the message says what was observed."""


def epochs_for(kinds: Sequence[Kind]) -> int:
    """Enough epochs that the job does not end before its last disruption."""
    return -(-sum(STEPS_BETWEEN[1] + kind.spare_steps for kind in kinds) // STEPS_PER_EPOCH) + 1


def wait(
    follower: Follower, until: Callable[[], bool], what: str, *, ended: bool = False, seconds: float = RECOVERY_SECONDS
) -> None:
    """Wait until `until()` is true. Raises Failed after `seconds`, or if the job ends first (unless `ended`)."""
    deadline = time.monotonic() + seconds
    while not until():
        follower.check()
        phase = follower.seen.phase
        if phase == "Failed" or (phase == "Succeeded" and not ended):
            conditions = json.dumps(follower.seen.job["status"].get("conditions"))
            raise Failed(f"the job is {phase} instead of: {what}; {conditions}")
        if time.monotonic() > deadline:
            raise Failed(f"not within {seconds:.0f} s: {what}; the job is {phase}")
        time.sleep(0.1)


def await_success(follower: Follower, seconds: float) -> None:
    """Wait until the job has succeeded and its status is complete. Raises Failed."""
    wait(follower, lambda: follower.seen.phase == "Succeeded", "success", ended=True, seconds=seconds)
    wait(follower, lambda: status_is_complete(follower.seen), "a complete status", ended=True)


def status_is_complete(seen: Seen) -> bool:
    """Whether the status has the job's end, and the reason of every attempt's end."""
    attempts = seen.job["status"].get("attempts", [])
    return "finishedAt" in seen.job["status"] and all("reason" in attempt for attempt in attempts)


def run_calmly(testbed: Testbed, name: str, epochs: int) -> float:
    """Run a job without disruptions and return the seconds it took."""
    began = time.monotonic()
    with testbed.create(name, epochs, failures=0) as follower:
        await_success(follower, 120 + 60 * epochs)
        return time.monotonic() - began


@dataclass
class Runner:
    """Runs a job with a schedule of disruptions."""

    testbed: Testbed
    kinds: Sequence[Kind]
    draw: random.Random
    made: list[Disruption] = field(default_factory=list)
    seen: Seen = field(default_factory=Seen)
    began: float = 0.0
    """time.time() when the job was created."""

    @property
    def epochs(self) -> int:
        """Epochs of the job."""
        return epochs_for(self.kinds)

    @property
    def ended(self) -> float:
        """Time of rank 0's last response."""
        return max([self.began, *(sample.at for sample in self.seen.samples)])

    def run(self, name: str) -> None:
        """Run the job to its end. Raises Failed; observations until then are kept."""
        self.began = time.time()
        try:
            with self.testbed.create(name, self.epochs, failures=len(self.kinds)) as follower:
                self.seen = follower.seen
                for kind in self.kinds:
                    made = self.disrupt(kind, follower)
                    after = f"again after {made.recovery_seconds or time.time() - made.at:.1f} s"
                    line = f"{made.number:3} {kind.name} ({', '.join(made.notes)}) at step {made.step}: {after}"
                    print(line, flush=True)
                await_success(follower, RECOVERY_SECONDS + 2 * self.epochs * STEPS_PER_EPOCH)
        except Exception:
            print(self.testbed.describe(), file=sys.stderr)
            raise
        finally:
            for made in self.made:
                complete(made, self.seen)

    def disrupt(self, kind: Kind, follower: Follower) -> Disruption:
        """Disrupt the job some steps after the last disruption, and wait until it makes steps again."""
        seen, cluster = follower.seen, self.testbed.cluster
        wait(follower, lambda: seen.training is not None, "first steps")
        attempt = seen.training
        assert attempt is not None
        step = self._next_step(attempt)
        operator = ""

        def due() -> bool:
            nonlocal operator
            operator = self._operator_at(attempt, step) or ""
            return operator != ""

        wait(follower, due, f"step {step} in attempt {attempt}, and a ready operator")
        newest = seen.newest
        assert newest is not None
        scene = Scene(cluster, seen, attempt, self.draw)
        made = Disruption(
            len(self.made) + 1, kind.name, attempt, time.time(), newest.step, sorted(kind.causes), scene.notes
        )
        self.made.append(made)
        try:
            kind.act(scene)
        except RuntimeError as error:
            raise Failed(f"{kind.name} failed in attempt {attempt}: {error}") from error
        made.causes = sorted(kind.causes | scene.excused) if kind.ends else []
        made.acted_seconds = round(time.time() - made.at, 2)
        if kind.ends:
            wait(follower, lambda: (seen.training or 0) > attempt, f"steps after {kind.name}")
        else:  # the job may end meanwhile
            wait(follower, lambda: serving_operator(cluster) not in (None, operator), "a ready operator", ended=True)
            made.recovery_seconds = round(time.time() - made.at, 2)
        return made

    def _next_step(self, attempt: int) -> int:
        """Step of the next disruption, early enough that the job does not end before its last disruption."""
        steps = self.draw.randint(*STEPS_BETWEEN)
        since = answers(self.seen, attempt)[-1].resumed_from or 0
        if self.made and self.made[-1].attempt == attempt:  # the last disruption did not end the attempt
            since = self.made[-1].step
        to_come = sum(kind.spare_steps + 1 for kind in self.kinds[len(self.made) :])
        return min(since + steps, self.epochs * STEPS_PER_EPOCH - to_come)

    def _operator_at(self, attempt: int, step: int) -> str | None:
        """The ready operator if the attempt has reached `step`, else None. Raises Failed if the attempt has ended."""
        newest = self.seen.newest
        if self.seen.training != attempt:
            reason = self.seen.attempts.get(attempt, {}).get("reason")
            raise Failed(f"attempt {attempt} ended without a disruption: {reason}")
        if newest is None or newest.attempt != attempt or newest.state != "training" or newest.step < step:
            return None
        return serving_operator(self.testbed.cluster)
