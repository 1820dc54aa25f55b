"""spec.activeDeadlineSeconds counts as in batch/v1: not while suspended or queued, and anew afterwards."""

from datetime import datetime
from typing import Any

import pytest

from distill_api.constants import Phase
from distill_api.reasons import Reason
from distill_api.status import DistillJobStatus
from distill_operator.plan.plan import make_plan
from distill_operator.types.observed import PodFacts
from tests.support.operator.samples import SETTINGS, at, attempt, child, closed, job, observed, pod, status

LIMIT = {"activeDeadlineSeconds": 100}
GANG = (pod(0), pod(1))


def after(
    old: DistillJobStatus, seconds: float, *pods: PodFacts, spec: dict[str, Any] | None = None, **seen: Any
) -> Any:
    plan = make_plan(observed(job(old, **LIMIT, **(spec or {})), *pods, **seen), at(seconds), SETTINGS)
    return plan.status or old


def test_the_time_starts_when_the_attempt_is_admitted() -> None:
    waiting = status(attempt(admitted_at=None), phase=Phase.QUEUED)
    queued = after(waiting, 5000, jobs=(child(suspended=True),))
    assert (queued.phase, queued.active_since) == (Phase.QUEUED, None)
    assert after(queued, 5010, jobs=(child(),)).active_since == at(5010)


def test_a_restart_does_not_set_it_back() -> None:
    second = status(closed(1), attempt(2), active_since=at(0))
    assert after(second, 50, jobs=(child(2),)).active_since == at(0)
    late = after(second, 100, pod(0, number=2), pod(1, number=2), jobs=(child(2),))
    assert late.attempts[-1].reason == Reason.DEADLINE_EXCEEDED


@pytest.mark.parametrize("since", [at(0), None])
def test_a_suspension_takes_it_back(since: datetime | None) -> None:
    running = status(attempt(running_at=at(1)), active_since=since)
    stopping = after(running, 60, *GANG, jobs=(child(),), spec={"suspend": True})
    assert stopping.active_since is None
    suspended = after(stopping, 5000, spec={"suspend": True})
    assert suspended.phase == Phase.SUSPENDED
    resumed = after(suspended, 6000)
    assert (resumed.phase, resumed.attempt) == (Phase.STARTING, 2)
    assert after(resumed, 6001, jobs=(child(2),)).active_since == at(6001)


def test_a_queue_that_takes_the_job_back_takes_it_back() -> None:
    running = status(attempt(running_at=at(1)), active_since=at(0))
    assert after(running, 60, jobs=(child(suspended=True),)).active_since is None
