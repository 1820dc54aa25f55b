"""Clocks of two seconds' difference do not change who is blamed."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import pytest

from distill_api.reasons import Reason
from distill_operator.policies.recovery import classify
from distill_operator.types.observed import PodFacts
from tests.support.operator.samples import at, child, disrupted, ended, job, observed, pod, report

PEER_LOST = report("failed", Reason.PEER_LOST)
STOPPED = report("stopped", Reason.STOPPED)


@dataclass(frozen=True)
class Clocks:
    """Seconds by which each clock is ahead of the API server's."""

    a: int
    """The node of rank 0."""
    b: int
    """The node of rank 1."""
    control: int
    """The Job controller and the scheduler."""


Story = Callable[[Clocks], tuple[PodFacts, PodFacts, float]]
"""What pods 0 and 1 show, and when the Job was marked as failing."""


def after(seconds: float) -> dict[str, object]:
    return {"deleted_at": at(seconds)}


def memory(c: Clocks) -> tuple[PodFacts, PodFacts, float]:
    a = pod(0, **ended(10 + c.a, 137, reason="OOMKilled"))
    return a, pod(1, **{**after(11), **ended(12 + c.b, 143, STOPPED)}), 11


def crash(c: Clocks) -> tuple[PodFacts, PodFacts, float]:
    return pod(0, **ended(10 + c.a, 1)), pod(1, **{**after(11), **ended(12 + c.b, 143, STOPPED)}), 11


def killed(c: Clocks) -> tuple[PodFacts, PodFacts, float]:
    return pod(0, **ended(10 + c.a, 137)), pod(1, **{**after(12), **ended(11 + c.b, 1, PEER_LOST)}), 11


def deleted(c: Clocks) -> tuple[PodFacts, PodFacts, float]:
    a = pod(0, **{**after(14), **ended(13 + c.a, 1, PEER_LOST)})
    return a, pod(1, **{**after(10), **ended(13 + c.b, 143, STOPPED)}), 14


def deleted_and_killed(c: Clocks) -> tuple[PodFacts, PodFacts, float]:
    a = pod(0, **{**after(14), **ended(13 + c.a, 1, PEER_LOST)})
    return a, pod(1, **{**after(10), **ended(12 + c.b, 137)}), 14


def deleted_and_a_peer_crashed(c: Clocks) -> tuple[PodFacts, PodFacts, float]:
    return pod(0, **ended(15 + c.a, 1)), pod(1, **{**after(10), **ended(14 + c.b, 143, STOPPED)}), 16


def preempted(c: Clocks) -> tuple[PodFacts, PodFacts, float]:
    a = pod(0, **{**after(13), **ended(12 + c.a, 1, PEER_LOST)})
    gone = {**disrupted(10 + c.control), "deleted_at": at(10)}
    return a, pod(1, **{**gone, **ended(12 + c.b, 143, STOPPED)}), 13


STORIES: dict[str, tuple[Story, Reason]] = {
    "memory": (memory, Reason.OUT_OF_MEMORY),
    "crash": (crash, Reason.TRAINER_ERROR),
    "killed": (killed, Reason.PROCESS_KILLED),
    "deleted": (deleted, Reason.POD_DELETED),
    "deleted, then killed": (deleted_and_killed, Reason.POD_DELETED),
    "deleted, and a peer crashed": (deleted_and_a_peer_crashed, Reason.POD_DELETED),
    "preempted": (preempted, Reason.PREEMPTED),
}


@pytest.mark.parametrize(("story", "expected"), STORIES.values(), ids=STORIES.keys())
def test_clocks_that_differ_by_two_seconds_do_not_change_the_blame(story: Story, expected: Reason) -> None:
    for a, b, control in product((-2, 0, 2), repeat=3):
        clocks = Clocks(a, b, control)
        one, other, failing = story(clocks)
        jobs = (child(failing_at=at(failing + control)),)
        for pods in ((one, other), (other, one)):
            found = classify.cause(observed(job(), *pods, jobs=jobs), 1, "job-1", at(60))
            assert (found and found.reason) == expected, clocks


def test_a_deletion_waits_for_the_job_to_say_whether_it_was_its_own() -> None:
    """The Job was read before the pods: the crash may have marked it as failing in between."""
    one, other, _ = crash(Clocks(0, 0, 0))
    unmarked = observed(job(), one, other, jobs=(child(),))
    assert classify.cause(unmarked, 1, "job-1", at(13)) is None
    settled = classify.cause(unmarked, 1, "job-1", at(17))
    assert settled is not None
    assert settled.reason == Reason.POD_DELETED
