"""Every life of a gang is told from every other: by the UID of its Job, and by the execution number of its rank 0."""

from typing import Any

import pytest

from distill_api.constants import Outcome, Phase
from distill_api.pod.report import TrainerStatus
from distill_api.reasons import Reason
from distill_api.status import Attempt, DistillJobStatus, Spent
from distill_operator.plan.plan import make_plan
from distill_operator.types.actions import Action, Create, Delete, Plan
from distill_operator.types.observed import JobFacts, PodFacts
from tests.support.operator.cluster import Cluster
from tests.support.operator.hazards import Hazards
from tests.support.operator.samples import (
    SETTINGS,
    UID,
    answer,
    at,
    attempt,
    child,
    closed,
    done,
    ended,
    job,
    observed,
    pod,
    report,
    status,
)

TRAINS = {"running_at": at(1), "stepped_at": at(5), "step": 5}
STRAY = child(1, uid="job-late")
GANG = (pod(0, job_uid=UID), pod(1, job_uid=UID))


def of_stray(rank: int, **fields: Any) -> PodFacts:
    return pod(rank, uid=f"late-{rank}", owner_uid="job-late", job_uid=UID, **fields)


def after(old: DistillJobStatus, *pods: PodFacts, jobs: tuple[JobFacts, ...] = (), **seen: Any) -> Plan:
    return make_plan(observed(job(old), *pods, jobs=jobs, **seen), at(60), SETTINGS)


def deleted(actions: tuple[Action, ...]) -> list[str]:
    return [action.uid for action in actions if isinstance(action, Delete)]


def created(actions: tuple[Action, ...]) -> list[str]:
    return [action.what for action in actions if isinstance(action, Create)]


def newest(plan: Plan) -> Attempt:
    assert plan.status is not None
    return plan.status.attempts[-1]


# --- the UID of the Job


@pytest.mark.parametrize("pods", [GANG, (), (of_stray(0), of_stray(1))])
def test_a_job_of_the_attempts_name_but_another_uid_is_deleted(pods: tuple[PodFacts, ...]) -> None:
    plan = after(status(attempt(**TRAINS)), *pods, jobs=(STRAY,))
    assert (newest(plan).reason, newest(plan).job_uid) == (Reason.POD_DELETED, "job-1")
    assert deleted(plan.actions) == ["job-late"]
    assert created(plan.actions) == []


def test_a_stray_is_deleted_while_the_attempts_own_pods_terminate() -> None:
    ending = status(attempt(reason=Reason.POD_DELETED, message="why", ended_at=at(59)), phase=Phase.RECOVERING)
    plan = after(ending, *GANG, jobs=(STRAY,))
    assert deleted(plan.actions) == ["job-late"]
    assert deleted(after(ending, *GANG, jobs=(child(uid="job-late", deleting=True),)).actions) == []


@pytest.mark.parametrize("deleting", [False, True])
def test_nothing_is_created_while_pods_of_a_stray_live(deleting: bool) -> None:
    going = {"deleted_at": at(50), "end_due_at": at(100)} if deleting else {}
    plan = after(status(closed(1), phase=Phase.RECOVERING), of_stray(0, **going))
    assert created(plan.actions) == []
    assert plan.status is not None
    assert (plan.status.attempt, plan.status.waiting and plan.status.waiting.reason) == (1, Reason.PODS_TERMINATING)
    assert created(after(status(closed(1), phase=Phase.RECOVERING)).actions) != []


def test_what_happens_to_the_pods_of_a_stray_is_not_the_attempts() -> None:
    """Neither its failures nor its record count: the next attempt finds what it has committed."""
    going = tuple(pod(rank, job_uid=UID, deleted_at=at(50), end_due_at=at(100)) for rank in (0, 1))
    record = of_stray(0, **ended(40, 0, done()))
    failed = of_stray(1, **ended(30, 137, reason="OOMKilled"))
    plan = after(status(attempt(**TRAINS)), *going, record, failed)
    assert newest(plan).reason == Reason.POD_DELETED
    assert plan.status is not None
    assert plan.status.result is None


def test_a_job_beside_pods_of_another_one_is_not_adopted() -> None:
    """The first Job was deleted before the operator had seen it, and the request to create it was carried out again."""
    starting = status(attempt(job_uid=None, admitted_at=None), phase=Phase.STARTING)
    plan = after(starting, *GANG, jobs=(STRAY,))
    assert newest(plan).job_uid is None
    assert deleted(plan.actions) == ["job-late"]
    assert created(plan.actions) == []


def test_a_job_that_is_deleted_before_it_is_known_is_waited_for() -> None:
    starting = status(attempt(job_uid=None, admitted_at=None), phase=Phase.STARTING)
    plan = after(starting, jobs=(child(deleting=True),))
    assert newest(plan).job_uid is None
    assert (deleted(plan.actions), created(plan.actions)) == ([], [])
    assert "Job tiny-a1" in created(after(starting).actions)


def test_no_job_is_created_while_a_late_earlier_one_may_start_pods() -> None:
    second = status(closed(1), attempt(2, job_uid=None, admitted_at=None), phase=Phase.STARTING)
    plan = after(second, jobs=(child(1),))
    assert (deleted(plan.actions), created(plan.actions)) == (["job-1"], [])


def test_both_gangs_of_a_request_that_arrives_late_end_and_one_trains_on() -> None:
    cluster = Hazards()
    for step in ("timed_out", "operate", "controllers", "delete_job_in_background", "arrive", "controllers", "operate"):
        cluster.step_world(step)
    over = cluster.settle()
    assert (over.phase, over.failures) == (Phase.SUCCEEDED, 0)
    assert over.preemptions <= 1


# --- the execution number


def says(execution: int | None, step: int = 10) -> TrainerStatus:
    return answer(step, committed=4).model_copy(update={"execution": execution})


@pytest.mark.parametrize(
    ("stored", "told", "kept", "news"),
    [(None, None, None, 0), (None, 1, 1, 0), (1, 1, 1, 0), (1, 2, 2, 1), (1, None, 1, 0), (7, 9, 9, 1)],
)
def test_a_change_of_the_execution_is_told_once(
    stored: int | None, told: int | None, kept: int | None, news: int
) -> None:
    spent = Spent(productive_seconds=3)
    before = status(attempt(**TRAINS, execution=stored, spent=spent))
    plan = after(before, *GANG, jobs=(child(),), trainer=says(told))
    assert newest(plan).execution == kept
    assert newest(plan).step == 10
    assert newest(plan).spent_before == (spent if news else None), "rank 0 measures its time anew"
    events = [event.message for event in plan.events if event.reason == Reason.EXECUTION_CHANGED]
    assert len(events) == news
    assert all(f"execution {stored} was followed by execution {told}" in text for text in events)
    assert plan.status is not None
    assert (plan.status.restarts, newest(plan).outcome, newest(plan).reason) == ("0/0", Outcome.RUNNING, None)
    again = after(plan.status, *GANG, jobs=(child(),), trainer=says(told))
    assert again.events == ()


def test_an_answer_of_an_earlier_life_changes_nothing() -> None:
    before = status(attempt(**TRAINS, execution=3, committed_step=2))
    plan = after(before, *GANG, jobs=(child(),), trainer=says(2, step=50))
    assert (newest(plan).execution, newest(plan).step, newest(plan).committed_step) == (3, 5, 2)


def test_the_termination_message_has_the_execution_too() -> None:
    last = report("failed", attempt=1, execution=4)
    plan = after(status(attempt(**TRAINS)), pod(0, **ended(50, 1, last)), pod(1), jobs=(child(),))
    assert newest(plan).execution == 4


@pytest.mark.parametrize("seen", [("operate",), ("forget", "operate")])
def test_a_queue_that_resumes_a_job_unseen_costs_nothing(seen: tuple[str, ...]) -> None:
    """If it remembers the pods it sees an end, else the new execution."""
    cluster = Hazards()
    life = ("operate", "operate", "controllers", "kubelets", "operate", "train", "operate")
    away = ("queue_evicts", "controllers", "kubelets", "controllers", "queue_admits", "controllers", "kubelets")
    for step in (*life, *away, *seen):
        cluster.step_world(step)
    if "forget" in seen:
        (first,) = cluster.dj.status.attempts
        assert (first.execution, first.reason, cluster.dj.status.restarts) == (2, None, "0/0")
    assert cluster.settle().phase == Phase.SUCCEEDED
    assert cluster.dj.status.failures == 0


def test_a_gang_that_a_later_start_replaced_is_no_failure() -> None:
    told = report("failed", Reason.SUPERSEDED, attempt=1)
    gang = (pod(0, **ended(50, 1, told)), pod(1, **ended(51, 1, report("failed", Reason.PEER_LOST))))
    plan = after(status(attempt(**TRAINS)), *gang, jobs=(child(failing_at=at(52)),))
    assert plan.status is not None
    assert plan.status.attempts[0].reason == Reason.SUPERSEDED
    assert (plan.status.attempt, plan.status.failures, plan.status.preemptions) == (2, 0, 1)


def test_a_first_life_has_the_number_of_its_attempt() -> None:
    cluster = Cluster()
    cluster.settle()
    assert [attempt.execution for attempt in cluster.dj.status.attempts] == [1]
