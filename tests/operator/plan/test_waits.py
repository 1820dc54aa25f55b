"""What a job waits for, such as claims, a queue or what others have left, and for how long."""

from dataclasses import replace
from typing import Any

import pytest

from distill_api.constants import ConditionType, Outcome, Phase
from distill_api.reasons import Reason
from distill_operator.plan.next_attempt import CLAIM_WAKE_SECONDS
from distill_operator.plan.plan import make_plan
from distill_operator.status import conditions
from distill_operator.types.actions import Create, Delete
from distill_operator.types.observed import ClaimFacts, Rejection
from tests.support.operator.cluster import Cluster
from tests.support.operator.samples import (
    CLAIMS,
    SETTINGS,
    at,
    attempt,
    child,
    closed,
    disrupted,
    ended,
    job,
    observed,
    pod,
    report,
    status,
)

PENDING = {"phase": "Pending", "scheduled_at": None, "unschedulable": "0/2 nodes are available"}


def test_a_checkpoint_of_an_unknown_format_waits_for_another_image() -> None:
    reason, says = Reason.CHECKPOINT_FORMAT_UNKNOWN, "step-10 has format 2; use a newer image"
    pods = (pod(0, **ended(5, 78, report("permanent", reason, message=says))), pod(1, **ended(6, 1)))
    failing = (child(failing_at=at(6)),)
    made = job(status(attempt(generation=1, committed_step=10), phase=Phase.STARTING))
    waiting = make_plan(observed(made, *pods, jobs=failing), at(7), SETTINGS).status
    assert waiting is not None
    assert (waiting.phase, waiting.restarts, waiting.attempts[0].outcome) == (
        Phase.RECOVERING,
        "0/0",
        Outcome.WITHDRAWN,
    )
    validated = conditions.find(waiting.conditions, ConditionType.VALIDATED)
    assert validated is not None
    assert (validated.status, validated.reason, validated.message) == ("False", reason, says)

    same = made.model_copy(update={"status": waiting})
    later = make_plan(observed(same, *pods, jobs=failing), at(99999), SETTINGS)
    assert later.status is not None
    assert (later.status.phase, later.status.attempt, later.wake_after) == (Phase.RECOVERING, 1, None)
    assert not [action for action in later.actions if isinstance(action, Create)], "the same spec is not tried again"
    other = same.model_copy(update={"metadata": same.metadata.model_copy(update={"generation": 2})})
    resumed = make_plan(observed(other, *pods, jobs=failing), at(99999), SETTINGS).status
    assert resumed is not None
    assert (resumed.phase, resumed.attempt, resumed.attempts[-1].generation) == (Phase.STARTING, 2, 2)


def test_claims_that_nobody_has_looked_at_are_not_missing_ones() -> None:
    """While an attempt is open they are not read; its end, and the next attempt, must not wait for an event."""
    gone = [pod(rank, **disrupted(4), **ended(5, 143), gone=True) for rank in range(2)]
    picture = observed(job(status(attempt())), *gone, jobs=(child(failing_at=at(5)),), claims=None)
    plan = make_plan(picture, at(6), SETTINGS)
    assert plan.status is not None
    assert (plan.status.phase, plan.status.restarts, plan.wake_after) == (Phase.RECOVERING, "0/1", 0.0)
    validated = conditions.find(plan.status.conditions, ConditionType.VALIDATED)
    assert validated is not None
    assert validated.status == "True"
    then = make_plan(replace(picture, job=job(plan.status), claims=CLAIMS), at(6), SETTINGS).status
    assert then is not None
    assert (then.phase, then.attempt) == (Phase.STARTING, 2)


def test_a_missing_claim_is_waited_for_and_then_fails_the_job() -> None:
    waiting = make_plan(observed(job(), claims=()), at(0), SETTINGS).status
    assert waiting is not None
    assert waiting.phase == Phase.PENDING
    validated = conditions.find(waiting.conditions, ConditionType.VALIDATED)
    assert validated is not None
    assert (validated.status, validated.reason) == ("False", Reason.CLAIM_NOT_FOUND)
    assert waiting.waiting is not None
    assert (waiting.waiting.reason, waiting.waiting.since) == (Reason.CLAIM_NOT_FOUND, at(0))
    assert make_plan(observed(job(waiting), claims=()), at(59), SETTINGS).status is None
    found = make_plan(observed(job(waiting)), at(59), SETTINGS).status
    assert found is not None
    assert (found.phase, found.waiting) == (Phase.STARTING, None)
    failed = make_plan(observed(job(waiting), claims=()), at(60), SETTINGS).status
    assert failed is not None
    assert failed.phase == Phase.FAILED


def test_a_job_that_has_committed_waits_for_its_claim_without_limit() -> None:
    preempted = closed(1, Reason.PREEMPTED, committed_step=10)
    waiting = make_plan(observed(job(status(preempted)), claims=()), at(0), SETTINGS).status
    assert waiting is not None
    assert (waiting.phase, waiting.waiting and waiting.waiting.reason) == (Phase.RECOVERING, Reason.CLAIM_NOT_FOUND)
    later = make_plan(observed(job(waiting), claims=()), at(99999), SETTINGS)
    assert later.status is not None
    assert (later.status.phase, later.wake_after) == (Phase.RECOVERING, CLAIM_WAKE_SECONDS)
    resumed = make_plan(observed(job(waiting)), at(99999), SETTINGS).status
    assert resumed is not None
    assert (resumed.phase, resumed.attempt) == (Phase.STARTING, 2)


def test_what_a_condition_says_is_no_clock() -> None:
    """Conditions are outputs: one of an earlier operator, or one that somebody else wrote, fails no job."""
    said = make_plan(observed(job(), claims=()), at(0), SETTINGS).status
    assert said is not None
    printed = said.model_copy(update={"waiting": None})
    late = make_plan(observed(job(printed), claims=()), at(9999), SETTINGS).status
    assert late is not None
    assert late.phase == Phase.PENDING
    assert late.waiting is not None
    assert late.waiting.since == at(9999)


@pytest.mark.parametrize(
    ("rejection", "phase", "reason"),
    [
        (Rejection("Job tiny-a1", "is invalid", Reason.POD_REJECTED), Phase.FAILED, Reason.POD_REJECTED),
        (Rejection("Job tiny-a1", "exceeded quota", Reason.QUOTA_EXCEEDED), Phase.PENDING, Reason.QUOTA_EXCEEDED),
        (Rejection("Service tiny-a1", "exists", Reason.NAME_TAKEN), Phase.PENDING, Reason.NAME_TAKEN),
    ],
)
def test_an_object_that_is_refused(rejection: Rejection, phase: Phase, reason: Reason) -> None:
    opened = status(attempt(job_uid=None), phase=Phase.STARTING)
    plan = make_plan(observed(job(opened), rejection=rejection), at(1), SETTINGS)
    assert plan.status is not None
    assert plan.status.phase == phase
    running = conditions.find(plan.status.conditions, ConditionType.RUNNING)
    assert running is not None
    assert running.reason == reason


REFUSED_POD = Rejection("pods of Job tiny-a1", 'admission webhook "w" denied the request: no', Reason.NOT_ADMITTED)


@pytest.mark.parametrize("elastic", [{}, {"elastic": {"minNodes": 1}}])
def test_an_attempt_withdrawn_for_refused_pods_keeps_the_refusals_text(elastic: dict[str, Any]) -> None:
    starting = job(status(attempt(), phase=Phase.STARTING), **elastic)
    seen = observed(starting, pod(0), jobs=(child(),), rejection=REFUSED_POD)
    late = make_plan(seen, at(1200), SETTINGS).status
    assert late is not None
    assert late.attempts[0].reason == Reason.SCHEDULING_TIMEOUT
    assert 'pods of Job tiny-a1: admission webhook "w" denied the request: no' in (late.attempts[0].message or "")


def test_an_attempt_withdrawn_for_a_refused_job_keeps_the_refusals_text() -> None:
    opened = job(status(attempt(job_uid=None), phase=Phase.STARTING))
    refused = Rejection("Job tiny-a1", "exceeded quota: small", Reason.QUOTA_EXCEEDED)
    waiting = make_plan(observed(opened, rejection=refused), at(1), SETTINGS).status
    assert waiting is not None
    late = make_plan(observed(job(waiting)), at(1200), SETTINGS).status
    assert late is not None
    assert late.attempts[0].reason == Reason.SCHEDULING_TIMEOUT
    assert "Job tiny-a1: a quota is used up" in (late.attempts[0].message or "")


def test_a_job_of_another_owner_is_never_touched() -> None:
    opened = status(attempt(job_uid=None), phase=Phase.STARTING)
    foreign = observed(job(opened), jobs=(child(owned=False),))
    assert not [a for a in make_plan(foreign, at(99999), SETTINGS).actions if isinstance(a, Delete)]


def test_pods_of_an_earlier_job_with_the_same_name_are_waited_for() -> None:
    plan = make_plan(observed(job(), pod(0, number=0)), at(0), SETTINGS)
    assert plan.status is not None
    assert (plan.status.attempt, plan.status.phase) == (0, Phase.PENDING)


def test_a_queue_may_hold_the_gang_for_as_long_as_it_likes() -> None:
    starting = status(attempt(admitted_at=None), phase=Phase.STARTING)
    held = make_plan(observed(job(starting), jobs=(child(suspended=True),)), at(9999), SETTINGS)
    assert held.status is not None
    assert held.status.phase == Phase.QUEUED
    assert not held.actions


def test_admission_after_a_long_queue_does_not_withdraw_the_attempt() -> None:
    queued, waits = job(status(attempt(admitted_at=None), phase=Phase.STARTING)), (pod(0, **PENDING), pod(1, **PENDING))
    for seconds, facts, pods in (
        (1, child(suspended=True), ()),
        (5000, child(suspended=True), ()),
        (5001, child(), ()),
        (5900, child(), waits),
    ):
        plan = make_plan(observed(queued, *pods, jobs=(facts,)), at(seconds), SETTINGS)
        queued = queued.model_copy(update={"status": plan.status or queued.status})
        assert queued.status.attempts[0].reason is None, f"withdrawn after {seconds} s"
    assert queued.status.attempts[0].admitted_at == at(5001)
    late = make_plan(observed(queued, *waits, jobs=(child(),)), at(5001 + 900 * 1.25), SETTINGS).status
    assert late is not None
    assert late.attempts[0].reason == Reason.SCHEDULING_TIMEOUT, "the timeout counts from the admission"


def test_a_job_that_comes_after_its_attempt_was_closed_starts_no_gang() -> None:
    cluster = Cluster()
    cluster.operate("timed_out")
    cluster.suspend(True)
    cluster.operate()
    assert cluster.dj.status.phase == Phase.SUSPENDED
    cluster.arrive()
    cluster.operate()
    assert [facts.deleting for facts in cluster.jobs.values()] == [True]
    over = cluster.settle()
    assert (over.phase, over.attempt) == (Phase.SUCCEEDED, 2)


def test_no_attempt_begins_while_the_job_of_a_closed_one_may_start_pods() -> None:
    before = status(closed(1), phase=Phase.RECOVERING)
    plan = make_plan(observed(job(before), jobs=(child(),)), at(1), SETTINGS)
    assert plan.status is not None
    assert plan.status.attempt == 1
    assert [(a.name, a.foreground) for a in plan.actions if isinstance(a, Delete)] == [("tiny-a1", True)]


def test_a_job_of_an_earlier_attempt_that_comes_late_is_deleted() -> None:
    second = status(closed(1), attempt(2, job_uid="job-2"))
    seen = observed(job(second), pod(0, number=2), pod(1, number=2), jobs=(child(1), child(2)))
    assert [a.name for a in make_plan(seen, at(1), SETTINGS).actions if isinstance(a, Delete)] == ["tiny-a1"]


TEMPLATE = {"checkpoints": {"claimTemplate": {"resources": {"requests": {"storage": "1Gi"}}}}}
OTHERS = {"data": {"claimName": "digits"}, "models": {"claimName": "runs"}}


@pytest.mark.parametrize("fields", [{"owned": False}, {"owned": True, "deleting": True}])
def test_a_claim_of_somebody_else_is_waited_for_however_long_it_takes(fields: dict[str, bool]) -> None:
    present = ClaimFacts("tiny-checkpoints", ("ReadWriteMany",), "Bound", **fields)
    waiting = job(volumes={**TEMPLATE, **OTHERS})
    for seconds in (0, 9999):
        plan = make_plan(observed(waiting, claims=(*CLAIMS, present)), at(seconds), SETTINGS)
        if plan.status is not None:
            waiting = waiting.model_copy(update={"status": plan.status})
        assert (waiting.status.phase, waiting.status.attempt) == (Phase.PENDING, 0)
    running = conditions.find(waiting.status.conditions, ConditionType.RUNNING)
    assert running is not None
    assert running.reason == Reason.NAME_TAKEN
    assert "tiny-checkpoints" in running.message


def test_a_claim_that_the_user_deletes_is_not_used() -> None:
    leaving = (CLAIMS[0], ClaimFacts("digits", ("ReadWriteMany",), "Bound", deleting=True))
    plan = make_plan(observed(job(), claims=leaving), at(0), SETTINGS)
    assert plan.status is not None
    assert plan.status.phase == Phase.PENDING
    assert not plan.actions


def test_a_refusal_that_lasts_is_told_once_until_the_job_exists() -> None:
    opened = status(attempt(job_uid=None), phase=Phase.STARTING)
    taken = Rejection("Service tiny-a1", "exists", Reason.NAME_TAKEN)
    first = make_plan(observed(job(opened), rejection=taken), at(1), SETTINGS)
    assert [(e.reason, e.reason.facts.event_type) for e in first.events] == [(Reason.NAME_TAKEN, "Warning")]
    pending = first.status
    assert pending is not None
    assert pending.waiting is not None
    assert (pending.waiting.reason, pending.waiting.since) == (Reason.NAME_TAKEN, at(1))
    again = make_plan(observed(job(pending)), at(6), SETTINGS)
    assert (again.status, again.events) == (None, ())
    assert [a for a in again.actions if isinstance(a, Create)]
    made = make_plan(observed(job(pending), jobs=(child(),)), at(7), SETTINGS).status
    assert made is not None
    assert (made.phase, made.waiting) == (Phase.STARTING, None)


def test_the_column_nodes_counts_running_pods_while_others_start() -> None:
    starting = job(status(attempt(), phase=Phase.STARTING))
    plan = make_plan(observed(starting, pod(0), pod(1, **PENDING), jobs=(child(),)), at(5), SETTINGS)
    assert plan.status is not None
    assert (plan.status.phase, plan.status.nodes) == (Phase.STARTING, "1/2")


@pytest.mark.parametrize(("committed", "waits"), [(10, True), (None, False)])
def test_a_claim_with_committed_checkpoints_is_not_made_anew(committed: int | None, waits: bool) -> None:
    failed = closed(1, Reason.TRAINER_ERROR, committed_step=committed)
    made = job(status(failed), volumes={**TEMPLATE, **OTHERS})
    plan = make_plan(observed(made, claims=CLAIMS), at(99999), SETTINGS)
    assert plan.status is not None
    creates = [action.what for action in plan.actions if isinstance(action, Create)]
    assert (plan.status.phase, bool(creates)) == (Phase.RECOVERING if waits else Phase.STARTING, not waits)
    if not waits:
        return
    validated = conditions.find(plan.status.conditions, ConditionType.VALIDATED)
    assert validated is not None
    assert (validated.status, validated.reason) == ("False", Reason.CHECKPOINTS_LOST)
    assert 'claim "tiny-checkpoints" is gone, and with it the checkpoints up to step 10' in validated.message

    restored = ClaimFacts("tiny-checkpoints", ("ReadWriteMany",), "Bound", owned=True)
    waiting = made.model_copy(update={"status": plan.status})
    resumed = make_plan(observed(waiting, claims=(*CLAIMS, restored)), at(99999), SETTINGS).status
    assert resumed is not None
    assert (resumed.phase, resumed.attempt) == (Phase.STARTING, 2)
