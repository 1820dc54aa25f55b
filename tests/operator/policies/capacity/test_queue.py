"""A queue that takes a running gang's nodes back: uncharged, the place is kept, and the lives are told apart."""

from typing import Any

import pytest

from distill_api.constants import Outcome, Phase
from distill_api.reasons import Reason
from distill_api.status import DistillJobStatus
from distill_operator.plan.plan import make_plan
from distill_operator.types.actions import Action, Create, Delete, Reserve
from distill_operator.types.observed import JobFacts, PodFacts, ServiceFacts
from tests.support.operator.cluster import Cluster
from tests.support.operator.samples import (
    SETTINGS,
    UID,
    at,
    attempt,
    child,
    closed,
    done,
    ended,
    job,
    observed,
    pod,
    status,
)

RUNNING = attempt(running_at=at(1), stepped_at=at(5), step=5, committed_step=3)
EVICTED = closed(1, Reason.QUEUE_EVICTED, outcome=Outcome.WITHDRAWN)
GOING = {"deleted_at": at(60), "end_due_at": at(120), "job_uid": UID}
SERVICE = ServiceFacts("tiny-a1", "svc-1", 1, owned=True)


def held(number: int, **fields: Any) -> JobFacts:
    """The Job of attempt 1, which now starts pods of attempt `number`."""
    return child(1, attempt=number, nodes=2, **fields)


def after(old: DistillJobStatus, *pods: PodFacts, jobs: tuple[JobFacts, ...], **spec: Any) -> Any:
    return make_plan(observed(job(old, **spec), *pods, jobs=jobs, services=(SERVICE,)), at(61), SETTINGS)


def deleted(actions: tuple[Action, ...]) -> list[str]:
    return [f"{action.kind} {action.name}" for action in actions if isinstance(action, Delete)]


def test_an_eviction_by_a_queue_is_a_disruption_of_its_own_kind() -> None:
    """Its pods are being deleted, by the Job controller: that is not why the attempt ends."""
    gang = (pod(0, **GOING), pod(1, **{**GOING, **ended(60, 143)}))
    plan = after(status(RUNNING), *gang, jobs=(held(1, suspended=True),))
    assert plan.status.attempts[0].reason == Reason.QUEUE_EVICTED
    assert plan.actions == (Reserve("tiny-a1", "job-1", 2, committed_step=3),)
    closed_ = after(plan.status, jobs=(held(2, suspended=True),))
    first, second = closed_.status.attempts
    assert (first.outcome, closed_.status.restarts) == (Outcome.WITHDRAWN, "0/0")
    assert (second.number, second.admitted_at) == (2, None)
    assert closed_.actions == (), "the Job has the place in the queue, and its pods need the Service of its name"
    queued = after(closed_.status, jobs=(held(2, suspended=True),))
    assert (queued.status.phase, queued.actions) == (Phase.QUEUED, ())


def test_an_eviction_explains_pods_that_were_seen_to_go_before_it() -> None:
    """The Job is read before the pods: the queue may have suspended it in between."""
    gang = (pod(0, **GOING), pod(1, **GOING))
    early = after(status(RUNNING), *gang, jobs=(held(1),))
    assert early.status.attempts[0].reason == Reason.POD_DELETED
    late = after(early.status, *gang, jobs=(held(1, suspended=True),))
    assert late.status.attempts[0].reason == Reason.QUEUE_EVICTED
    assert late.actions == (Reserve("tiny-a1", "job-1", 2, committed_step=3),)
    assert late.status.attempts[0].decision[-1] != early.status.attempts[0].decision[-1]


def test_an_eviction_does_not_explain_a_failure() -> None:
    ending = status(attempt(reason=Reason.TRAINER_ERROR, message="why", ended_at=at(60)), phase=Phase.RECOVERING)
    late = after(ending, pod(0, **GOING), jobs=(held(1, suspended=True),))
    assert late.status is None or late.status.attempts[0].reason == Reason.TRAINER_ERROR


def test_a_queue_that_admits_before_the_end_was_seen_goes_on() -> None:
    """The Job controller starts the new pods when the old ones are gone, not when the operator has seen it."""
    ending = status(attempt(reason=Reason.QUEUE_EVICTED, message="why", ended_at=at(60)), phase=Phase.RECOVERING)
    new = (pod(0, number=2, owner_uid="job-1", job_uid=UID), pod(1, number=2, owner_uid="job-1", job_uid=UID))
    plan = after(ending, *new, jobs=(held(2),))
    assert (plan.status.attempt, plan.actions) == (2, ())


def test_a_job_that_was_admitted_again_before_it_was_reserved_is_replaced() -> None:
    ending = status(attempt(reason=Reason.QUEUE_EVICTED, message="why", ended_at=at(60)), phase=Phase.RECOVERING)
    plan = after(ending, pod(0, job_uid=UID), jobs=(held(1),))
    assert deleted(plan.actions) == ["Job tiny-a1"]


@pytest.mark.parametrize(("seconds", "gone"), [(1, []), (30, []), (31, ["Job tiny-a1"])])
def test_a_job_that_cannot_be_reserved_is_replaced_after_a_while(seconds: float, gone: list[str]) -> None:
    """As when something other than Kueue suspends it: its pods' template stays immutable."""
    ending = status(attempt(reason=Reason.QUEUE_EVICTED, message="why", ended_at=at(0)), phase=Phase.RECOVERING)
    seen = observed(job(ending), pod(0, job_uid=UID), jobs=(held(1, suspended=True),), services=(SERVICE,))
    actions = make_plan(seen, at(seconds), SETTINGS).actions
    assert deleted(actions) == gone
    assert any(isinstance(action, Reserve) for action in actions) is not bool(gone)


@pytest.mark.parametrize(("nodes", "suspend"), [(3, False), (2, True)])
def test_a_reserved_job_that_is_not_wanted_any_more_is_deleted(nodes: int, suspend: bool) -> None:
    plan = after(status(EVICTED), jobs=(child(1, attempt=2, nodes=nodes, suspended=True),), suspend=suspend)
    assert deleted(plan.actions) == ["Job tiny-a1"]
    assert not [action for action in plan.actions if isinstance(action, Create)]
    assert plan.status is None or plan.status.attempt == 1


def test_a_job_that_was_never_admitted_was_not_evicted() -> None:
    waiting = status(attempt(admitted_at=None), phase=Phase.QUEUED)
    plan = after(waiting, jobs=(held(1, suspended=True),))
    assert plan.status.attempts[0].reason is None


@pytest.mark.parametrize("moment", range(4, 24, 3))
@pytest.mark.parametrize("gap", [0, 1, 2, 5])
def test_evicted_and_admitted_at_any_moment_costs_nothing(moment: int, gap: int) -> None:
    """The simulated cluster fails if two gangs live, and if the Job's pods are of an attempt that has ended."""
    cluster = Cluster()
    life = ["operate", "controllers", "operate", "kubelets", "operate", "train", "commit"] * 5
    for step in life[:moment]:
        cluster.step_world(step)
    cluster.step_world("queue_evicts")
    for step in ["operate", "controllers", "kubelets", "operate", "controllers"][:gap]:
        cluster.step_world(step)
    cluster.fault("queue_admits", 0)
    over = cluster.settle()
    assert (over.phase, over.restarts) == (Phase.SUCCEEDED, "0/0")


@pytest.mark.parametrize("job_is_going", [False, True])
def test_a_job_does_not_end_while_the_place_that_it_kept_starts_pods(job_is_going: bool) -> None:
    """The training was complete before the evicted pods ended, and the queue has admitted the kept Job again."""
    ending = attempt(reason=Reason.QUEUE_EVICTED, message="why", ended_at=at(60), running_at=at(1))
    finished = pod(0, gone=True, **ended(60, 0, done()))
    new = (pod(0, number=2, owner_uid="job-1", job_uid=UID), pod(1, number=2, owner_uid="job-1", job_uid=UID))
    kept = held(2, deleting=job_is_going)
    plan = after(status(ending), finished, *new, jobs=(kept,))
    assert plan.status.result is not None
    assert (plan.status.phase, plan.status.waiting.reason) == (Phase.RECOVERING, Reason.PODS_TERMINATING)
    assert deleted(plan.actions) == ([] if job_is_going else ["Job tiny-a1"])
    assert after(plan.status, jobs=()).status.phase == Phase.SUCCEEDED


def test_a_suspended_job_waits_for_the_pods_of_the_place_that_it_kept() -> None:
    new = (pod(0, number=2, owner_uid="job-1", job_uid=UID), pod(1, number=2, owner_uid="job-1", job_uid=UID))
    plan = after(status(EVICTED), *new, jobs=(held(2, deleting=True),), suspend=True)
    assert plan.status.phase == Phase.RUNNING, "as before; it is not yet suspended"
    assert plan.status.waiting.reason == Reason.PODS_TERMINATING
