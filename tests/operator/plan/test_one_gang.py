"""At most one gang: nothing is created while a pod of any attempt lives, whoever deleted its Job and however."""

from typing import Any

import pytest

from distill_api.constants import Phase
from distill_api.reasons import Reason
from distill_operator.plan.plan import make_plan
from distill_operator.types.actions import Action, Create, Delete
from tests.support.operator.cluster import Cluster
from tests.support.operator.samples import SETTINGS, UID, at, attempt, child, closed, job, observed, pod, status

RUNNING = {"running_at": at(1), "stepped_at": at(5), "step": 5}
OURS = {"job_uid": UID}


def kinds(actions: tuple[Action, ...]) -> list[tuple[str, str]]:
    return [
        ("create", action.what) if isinstance(action, Create) else ("delete", f"{action.kind} {action.name}")
        for action in actions
    ]


def test_a_job_that_was_orphaned_ends_the_attempt_and_its_pods_are_deleted() -> None:
    """kubectl delete job --cascade=orphan: the pods train on, and nobody but the operator would end them."""
    running = job(status(attempt(**RUNNING)))
    pods = (pod(0, owner_uid="", **OURS), pod(1, owner_uid="", **OURS))
    plan = make_plan(observed(running, *pods), at(60), SETTINGS)
    assert plan.status is not None
    assert (plan.status.phase, plan.status.attempts[0].reason) == (Phase.RECOVERING, Reason.POD_DELETED)
    assert kinds(plan.actions) == [("delete", "Pod tiny-a1-0"), ("delete", "Pod tiny-a1-1")]
    assert not [action for action in plan.actions if isinstance(action, Delete) and action.at_once]


@pytest.mark.parametrize("fields", [{}, {"deleted_at": at(10), "end_due_at": at(20)}])
def test_a_job_deleted_before_its_uid_was_stored_is_not_made_again(fields: dict[str, Any]) -> None:
    """kubectl delete job --cascade=background: the Job is gone at once, its pods some seconds later."""
    starting = job(status(attempt(job_uid=None, admitted_at=None), phase=Phase.STARTING))
    pods = (pod(0, owner_uid="unknown", **OURS, **fields), pod(1, owner_uid="unknown", **OURS, **fields))
    plan = make_plan(observed(starting, *pods), at(11), SETTINGS)
    assert not [action for action in plan.actions if isinstance(action, Create)]


def test_pods_that_an_ended_attempt_left_behind_are_deleted() -> None:
    left = job(status(closed(1), phase=Phase.RECOVERING))
    plan = make_plan(observed(left, pod(0, owner_uid="", **OURS)), at(60), SETTINGS)
    assert kinds(plan.actions) == [("delete", "Pod tiny-a1-0")]
    assert plan.status is not None
    assert (plan.status.attempt, plan.status.waiting and plan.status.waiting.reason) == (1, Reason.PODS_TERMINATING)


def test_pods_of_an_earlier_job_of_the_name_are_waited_for_and_not_deleted() -> None:
    predecessors = pod(0, attempt=0, owner_uid="", job_uid="earlier")
    plan = make_plan(observed(job(), predecessors), at(0), SETTINGS)
    assert plan.actions == ()
    assert plan.status is not None
    assert plan.status.attempt == 0


def test_a_job_that_only_the_operator_has_not_seen_yet_is_created() -> None:
    starting = job(status(attempt(job_uid=None, admitted_at=None), phase=Phase.STARTING))
    plan = make_plan(observed(starting), at(11), SETTINGS)
    assert ("create", "Job tiny-a1") in kinds(plan.actions)
    assert not kinds(make_plan(observed(starting, jobs=(child(),)), at(11), SETTINGS).actions)


@pytest.mark.parametrize("fault", ["orphan_job", "delete_job_in_background"])
@pytest.mark.parametrize("moment", range(14))
def test_a_job_deleted_without_its_pods_at_any_moment_is_one_disruption(fault: str, moment: int) -> None:
    """The simulated cluster fails if two gangs live at any time."""
    cluster = Cluster()
    life = ["operate", "controllers", "operate", "kubelets", "operate", "train"] * 3
    for step in [*life[:moment], fault, *life[moment:]]:
        cluster.step_world(step)
    over = cluster.settle()
    assert over.phase == Phase.SUCCEEDED
    assert over.failures == 0
    assert over.preemptions <= 1


@pytest.mark.parametrize(("due", "wake"), [(14, 4), (None, 10), (200, 10)])
def test_leftover_pods_are_looked_at_when_their_grace_period_ends(due: float | None, wake: float) -> None:
    left = job(status(closed(1), phase=Phase.RECOVERING))
    going = {"deleted_at": at(4), "end_due_at": at(due)} if due is not None else {}
    plan = make_plan(observed(left, pod(0, **OURS, **going), jobs=(child(deleting=True),)), at(10), SETTINGS)
    assert plan.wake_after == wake
