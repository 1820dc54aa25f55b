"""Each policy of the operator as a table."""

from datetime import timedelta
from typing import Any

import pytest

from distill_api.constants import KIND, ConditionType, Outcome, Phase
from distill_api.reason_facts import Place
from distill_api.reasons import Reason
from distill_api.spec.fields import Recovery
from distill_api.status import Condition, SpecChange, VersionChange
from distill_operator.kube import objects
from distill_operator.plan.plan import make_plan
from distill_operator.policies.capacity import claims, scheduling
from distill_operator.policies.lifetime import deadlines, ttl
from distill_operator.policies.recovery import backoff, budgets, progress_guard
from distill_operator.status import conditions, progress
from distill_operator.status.events import transition_events
from distill_operator.types import attempts
from distill_operator.types.actions import Delete, Notice
from distill_operator.types.observed import ClaimFacts
from tests.support.operator.samples import (
    CLAIMS,
    NOW,
    SETTINGS,
    UID,
    answer,
    at,
    attempt,
    child,
    closed,
    ended,
    job,
    observed,
    pod,
    report,
    status,
)

FAILED, DISRUPTED, WITHDRAWN = Outcome.FAILED, Outcome.DISRUPTED, Outcome.WITHDRAWN


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [
        (Reason.COMPLETED, Outcome.SUCCEEDED),
        (Reason.PREEMPTED, DISRUPTED),
        (Reason.POD_DELETED, DISRUPTED),
        (Reason.STOPPED, DISRUPTED),
        (Reason.DISRUPTED, DISRUPTED),
        (Reason.SUSPENDED_BY_USER, WITHDRAWN),
        (Reason.SCHEDULING_TIMEOUT, WITHDRAWN),
        (Reason.DEADLINE_EXCEEDED, WITHDRAWN),
        (Reason.OUT_OF_MEMORY, FAILED),
        (Reason.STALLED, FAILED),
        (Reason.PEER_LOST, FAILED),
        (Reason.PAIR_MISMATCH, FAILED),
        (Reason.NO_COMPLETION_RECORD, FAILED),
    ],
)
def test_what_an_end_counts_as(reason: Reason, outcome: Outcome) -> None:
    assert attempts.outcome_of(reason) == outcome


@pytest.mark.parametrize("reason", [r for r in Reason if Place.ATTEMPT not in r.facts.places])
def test_a_reason_that_ends_no_attempt_is_never_charged_as_a_failure(reason: Reason) -> None:
    with pytest.raises(ValueError, match=reason):
        attempts.outcome_of(reason)


@pytest.mark.parametrize(("outcome", "failures", "preemptions"), [(FAILED, 1, 0), (DISRUPTED, 0, 1), (WITHDRAWN, 0, 0)])
def test_each_end_is_charged_to_its_own_budget(outcome: Outcome, failures: int, preemptions: int) -> None:
    charged = budgets.charged(status(), outcome)
    assert (charged.failures, charged.preemptions) == (failures, preemptions)


@pytest.mark.parametrize(
    ("failures", "preemptions", "recovery", "expected"),
    [
        (3, 99, Recovery(max_failures=3), None),
        (4, 0, Recovery(max_failures=3), Reason.FAILURE_BUDGET_EXCEEDED),
        (0, 0, Recovery(max_failures=0), None),
        (1, 0, Recovery(max_failures=0), Reason.FAILURE_BUDGET_EXCEEDED),
        (0, 2, Recovery(max_preemptions=2), None),
        (0, 3, Recovery(max_preemptions=2), Reason.PREEMPTION_BUDGET_EXCEEDED),
    ],
)
def test_a_budget_allows_its_number_and_no_more(
    failures: int, preemptions: int, recovery: Recovery, expected: Reason | None
) -> None:
    verdict = budgets.exceeded(status(failures=failures, preemptions=preemptions), recovery)
    assert (verdict.reason if verdict else None) == expected


@pytest.mark.parametrize(
    ("before", "fields", "reason", "after"),
    [
        (2, {"resumed_from_step": 10, "committed_step": 11}, Reason.TRAINER_ERROR, 0),
        (2, {"resumed_from_step": 10, "committed_step": 10}, Reason.TRAINER_ERROR, 3),
        (2, {}, Reason.PREEMPTED, 3),
        (2, {}, Reason.SUSPENDED_BY_USER, 2),
        (0, {"committed_step": 5}, Reason.PREEMPTED, 0),
    ],
)
def test_only_a_newly_committed_step_is_progress(
    before: int, fields: dict[str, Any], reason: Reason, after: int
) -> None:
    job_status = status(attempt(**fields), restarts_without_progress=before)
    counted = progress_guard.counted(job_status, job_status.attempts[0], reason)
    assert counted.restarts_without_progress == after


def test_an_attempt_of_unknown_start_is_measured_by_those_before_it() -> None:
    again = status(closed(1, committed_step=20), attempt(2, committed_step=20))
    assert not progress_guard.made_progress(again, again.attempts[1])


@pytest.mark.parametrize(
    ("reason", "outcome", "fruitless", "seconds"),
    [
        (Reason.PREEMPTED, DISRUPTED, 0, 0),
        (Reason.PREEMPTED, DISRUPTED, 1, 0),
        (Reason.PREEMPTED, DISRUPTED, 2, 10),
        (Reason.PREEMPTED, DISRUPTED, 4, 40),
        (Reason.TRAINER_ERROR, FAILED, 0, 0),
        (Reason.TRAINER_ERROR, FAILED, 1, 10),
        (Reason.TRAINER_ERROR, FAILED, 2, 20),
        (Reason.TRAINER_ERROR, FAILED, 3, 40),
        (Reason.TRAINER_ERROR, FAILED, 30, 300),
        (Reason.SUSPENDED_BY_USER, WITHDRAWN, 4, 0),
    ],
)
def test_failures_without_progress_back_off_and_all_else_restarts_at_once(
    reason: Reason, outcome: Outcome, fruitless: int, seconds: float
) -> None:
    assert backoff.delay(reason, outcome, fruitless, UID, 1, SETTINGS) == seconds


def test_rivals_for_one_cluster_come_back_at_different_times() -> None:
    waits = {backoff.delay(Reason.SCHEDULING_TIMEOUT, WITHDRAWN, 0, f"uid-{n}", 1, SETTINGS) for n in range(20)}
    assert len(waits) > 10
    assert all(5 <= wait <= 30 for wait in waits)
    again = backoff.delay(Reason.SCHEDULING_TIMEOUT, WITHDRAWN, 0, "uid-1", 1, SETTINGS)
    assert again == backoff.delay(Reason.SCHEDULING_TIMEOUT, WITHDRAWN, 0, "uid-1", 1, SETTINGS)


MOST = 2**63 - 1
"""The largest number that the API server stores."""


def test_seconds_beyond_the_calendar_are_as_good_as_for_ever() -> None:
    recovery = dict.fromkeys(("stallTimeoutSeconds", "schedulingTimeoutSeconds", "nodeLostTimeoutSeconds"), MOST)
    spec = {
        "activeDeadlineSeconds": MOST,
        "ttlSecondsAfterFinished": MOST,
        "recovery": recovery,
        "elastic": {"minNodes": 1, "shrinkAfterSeconds": MOST, "growAfterSeconds": MOST},
        "checkpoint": {"intervalSeconds": MOST},
    }
    waiting = status(phase=Phase.PENDING, active_since=NOW)
    small = status(attempt(nodes=1, scheduled_at=NOW, grow_tries=9), active_since=NOW)
    lost = status(attempt(reason=Reason.DISRUPTED, ended_at=NOW), active_since=NOW)
    over = status(closed(), phase=Phase.FAILED, finished_at=NOW)
    gone = pod(1, deleted_at=NOW, end_due_at=NOW)
    for stored, pods in ((waiting, ()), (small, (pod(),)), (lost, (pod(), gone)), (over, ())):
        plan = make_plan(observed(job(stored, **spec), *pods, jobs=(child(),) if pods else ()), at(60), SETTINGS)
        assert not any(isinstance(action, Delete) and action.kind == KIND for action in plan.actions)


def test_deadline_and_ttl_pass_at_their_second() -> None:
    assert deadlines.exceeded(60, NOW, at(59)) is None
    assert deadlines.exceeded(60, NOW, at(60)) is not None
    assert deadlines.exceeded(None, NOW, at(9999)) is None
    assert deadlines.exceeded(60, None, at(9999)) is None
    assert ttl.seconds_left(60, NOW, at(20)) == 40
    assert ttl.seconds_left(0, NOW, NOW) == 0
    assert ttl.seconds_left(None, NOW, at(9999)) is None


PENDING = {"phase": "Pending", "scheduled_at": None, "unschedulable": "0/2 nodes are available"}
CREATING = {"phase": "Pending"}
PULLING = {"phase": "Pending", "waiting": "ImagePullBackOff", "waiting_message": "no such image"}


@pytest.mark.parametrize(
    ("pods", "seconds", "expected"),
    [
        ([pod(0), pod(1, **PENDING)], 899, None),
        ([pod(0), pod(1, **PENDING)], 1200, Reason.SCHEDULING_TIMEOUT),
        ([], 1200, Reason.SCHEDULING_TIMEOUT),
        ([pod(0), pod(1)], 99999, None),
        ([pod(0), pod(1, **CREATING)], 1200, Reason.SCHEDULING_TIMEOUT),
        ([pod(0), pod(1, **PULLING)], 899, None),
        ([pod(0), pod(1, **PULLING)], 1200, Reason.IMAGE_PULL),
        ([pod(0), pod(1, phase="Pending", scheduled_at=at(1000))], 1200, None),
    ],
)
def test_a_gang_that_is_not_complete_in_time_is_taken_back(
    pods: list[Any], seconds: float, expected: Reason | None
) -> None:
    verdict = scheduling.timed_out(tuple(pods), 2, NOW, 900, UID, 1, at(seconds))
    assert (verdict.reason if verdict else None) == expected


def test_a_starting_gang_says_what_it_waits_for() -> None:
    assert scheduling.waiting((pod(0), pod(1, **PENDING)), 2, 1) == Notice(
        Reason.UNSCHEDULABLE, "attempt 1: 1 of 2 pods cannot be scheduled: 0/2 nodes are available"
    )
    assert scheduling.waiting((pod(0), pod(1, **PULLING)), 2, 1).reason == Reason.IMAGE_PULL
    assert scheduling.waiting((pod(0), pod(1)), 2, 1).message == (
        "attempt 1: 2 of 2 pods are running; waiting for the first step"
    )


@pytest.mark.parametrize(
    ("found", "nodes", "expected"),
    [
        (CLAIMS, 2, None),
        (CLAIMS[:1], 2, Reason.CLAIM_NOT_FOUND),
        ((), 2, Reason.CLAIM_NOT_FOUND),
        ((CLAIMS[0], ClaimFacts("digits", ("ReadWriteMany",), "Lost")), 2, Reason.CLAIM_NOT_BOUND),
        ((CLAIMS[0], ClaimFacts("digits", ("ReadOnlyMany",), "Bound")), 2, None),
        ((ClaimFacts("runs", ("ReadWriteOnce",), "Bound"), CLAIMS[1]), 2, Reason.CONFIG_INVALID),
        ((ClaimFacts("runs", ("ReadOnlyMany",), "Bound"), CLAIMS[1]), 2, Reason.CONFIG_INVALID),
        ((ClaimFacts("runs", ("ReadWriteOnce",), "Bound"), CLAIMS[1]), 1, None),
    ],
)
def test_claims_must_be_there_and_fit_the_number_of_nodes(
    found: tuple[ClaimFacts, ...], nodes: int, expected: Reason | None
) -> None:
    problem = claims.problem(job(nodes=nodes).spec, "tiny", "team", found)
    assert (problem.reason if problem else None) == expected


def test_the_message_about_a_claim_says_what_to_change() -> None:
    narrow = (ClaimFacts("runs", ("ReadWriteOnce",), "Bound"), CLAIMS[1])
    problem = claims.problem(job().spec, "tiny", "team", narrow)
    assert problem is not None
    assert problem.message == (
        'spec.nodes is 2 but claim "runs" of spec.volumes.checkpoints is ReadWriteOnce; '
        "use a ReadWriteMany claim or nodes: 1"
    )


def condition(holds: str, seconds: float, reason: str = "Why") -> Condition:
    return Condition(
        type=ConditionType.RUNNING, status="True" if holds == "True" else "False", reason=reason,
        last_transition_time=at(seconds),
    )  # fmt: skip


def test_a_condition_keeps_its_time_until_its_status_changes() -> None:
    first = conditions.set_condition([], condition("False", 0))
    same = conditions.set_condition(first, condition("False", 5, "Another"))
    assert [(c.last_transition_time, c.reason) for c in same] == [(NOW, "Another")]
    assert conditions.set_condition(same, condition("True", 9))[0].last_transition_time == at(9)


def test_progress_never_goes_down_and_foreign_answers_are_ignored() -> None:
    start = status(attempt())
    one = progress.folded(start, observed(job(start), pod(0), trainer=answer(30, committed=20)), at(5))
    assert one.attempts[0].running_at == one.attempts[0].stepped_at == at(5)
    assert (one.attempts[0].step, one.attempts[0].committed_step, one.attempts[0].resumed_from_step) == (30, 20, 0)
    late = progress.folded(one, observed(job(one), trainer=answer(25, committed=10)), at(6))
    assert (late.attempts[0].step, late.attempts[0].committed_step) == (30, 20)
    foreign = progress.folded(start, observed(job(start), trainer=answer(30, number=2)), at(5))
    assert foreign == start


def test_lost_steps_are_what_the_attempt_before_had_made_beyond_its_commit() -> None:
    resumed = status(closed(1, step=57, committed_step=50), attempt(2))
    fields = {"resumed": 50, "number": 2}
    told = progress.folded(resumed, observed(job(resumed), trainer=answer(50, 50, **fields)), at(5))
    assert told.attempts[1].lost_steps == 7
    nothing_lost = status(closed(1, step=50, committed_step=50), attempt(2))
    told = progress.folded(nothing_lost, observed(job(nothing_lost), trainer=answer(50, 50, **fields)), at(5))
    assert told.attempts[1].lost_steps == 0


def test_a_lost_attempt_that_made_no_step_does_not_hide_the_one_before() -> None:
    before = status(closed(1, step=57, committed_step=50), closed(2), attempt(3))
    told = progress.folded(before, observed(job(before), trainer=answer(50, 50, number=3, resumed=50)), at(5))
    assert told.attempts[2].lost_steps == 7


def test_a_termination_message_brings_the_last_steps() -> None:
    start = status(attempt(step=40))
    last = report("stopped", Reason.STOPPED, step=44, committedStep=44, resumedFromStep=0)
    told = progress.folded(start, observed(job(start), pod(0, **ended(9, 143, last))), at(10))
    assert (told.attempts[0].step, told.attempts[0].committed_step) == (44, 44)


def test_mere_progress_is_written_at_most_every_five_seconds() -> None:
    running = status(attempt())
    first = progress.folded(running, observed(job(running), trainer=answer(1)), at(0))
    soon = progress.folded(first, observed(job(first), trainer=answer(2)), at(3))
    later = progress.folded(first, observed(job(first), trainer=answer(3)), at(5))
    assert progress.worth_writing(running, first, 5)
    assert not progress.worth_writing(first, soon, 5)
    assert progress.worth_writing(first, later, 5)
    assert progress.worth_writing(first, soon.model_copy(update={"phase": Phase.RECOVERING}), 5)


@pytest.mark.parametrize(("seconds", "text"), [(45, "45s"), (720, "12m"), (4800, "1h20m"), (273600, "3d4h"), (0, "0s")])
def test_durations_read_as_kubectl_prints_ages(seconds: int, text: str) -> None:
    assert progress.duration(seconds) == text


def test_the_gap_to_the_teacher_follows_from_both() -> None:
    told = answer(1, student_map=0.41, teacher_map=0.5).progress
    assert progress.completed(told).map_gap == pytest.approx(0.09)


def test_events_tell_each_transition_once() -> None:
    before = status(attempt(1), phase=Phase.STARTING)
    after = status(attempt(1, running_at=at(5), resumed_from_step=0), phase=Phase.RUNNING)
    notice = Notice(Reason.TRAINING, "")
    assert [e.reason for e in transition_events(before, after, notice)] == [Reason.TRAINING]
    assert transition_events(after, after, notice) == ()
    over = status(closed(1), attempt(2), phase=Phase.STARTING)
    assert [e.reason for e in transition_events(after, over, notice)] == [Reason.PREEMPTED, Reason.ATTEMPT_CREATED]


def test_a_resume_with_other_versions_is_an_event_of_its_own() -> None:
    change = VersionChange(name="torch", checkpoint="2.8.0", attempt="2.9.0")
    before = status(attempt(2))
    after = status(attempt(2, resumed_from_step=50, version_changes=[change]))
    resumed, warned = transition_events(before, after, Notice(Reason.TRAINING, ""))
    assert resumed.reason == Reason.RESUMED
    assert (warned.reason.facts.event_type, warned.reason) == ("Warning", Reason.VERSIONS_CHANGED)
    assert "torch 2.8.0 is now 2.9.0" in warned.message
    assert transition_events(after, after, Notice(Reason.TRAINING, "")) == ()


def test_a_resume_with_a_corrected_spec_is_an_event_of_its_own() -> None:
    change = SpecChange(field="training.lr0", checkpoint="0.01", attempt="0.001")
    before, notice = status(attempt(2)), Notice(Reason.TRAINING, "")
    after = status(attempt(2, resumed_from_step=50, spec_changes=[change]))
    _, told = transition_events(before, after, notice)
    assert (told.reason.facts.event_type, told.reason) == ("Normal", Reason.SPEC_CHANGED)
    assert "training.lr0 0.01 is now 0.001" in told.message
    assert transition_events(after, after, notice) == ()


def test_deletion_is_dated_when_it_was_asked_for() -> None:
    deleted = {
        "metadata": {
            "name": "p",
            "uid": "u",
            "creationTimestamp": "2026-11-23T11:00:00Z",
            "deletionTimestamp": "2026-11-23T12:01:00Z",
            "deletionGracePeriodSeconds": 60,
            "labels": {"distilljob.dev/attempt": "3", "batch.kubernetes.io/job-completion-index": "1"},
        },
        "status": {"phase": "Running"},
    }
    pod_facts = objects.pod_facts(deleted)
    assert (pod_facts.deleted_at, pod_facts.attempt, pod_facts.rank) == (NOW, 3, 1)
    assert pod_facts.live
    assert not pod_facts.running
    assert not objects.pod_facts(deleted, gone=True).live


def test_pods_of_an_earlier_job_with_the_same_name_belong_to_no_attempt() -> None:
    ours, theirs = pod(0), pod(1, owner_uid="another", job_uid="earlier")
    assert [p.attempt for p in objects.of_attempts([ours, theirs], {"job-1": 1}, UID)] == [1, 0]


def test_the_newest_twenty_attempts_are_kept() -> None:
    many = status()
    for _ in range(25):
        many = attempts.with_new_attempt(many, 2, NOW + timedelta(seconds=1))
    assert (many.attempt, len(many.attempts), many.attempts[0].number) == (25, 20, 6)


def test_withdrawn_attempts_do_not_push_the_others_out_of_the_history() -> None:
    many = status(closed(1), closed(2, Reason.OUT_OF_MEMORY, outcome=Outcome.FAILED))
    for _ in range(60):
        withdrawn = many.attempts[-1].model_copy(update={"outcome": Outcome.WITHDRAWN}) if many.attempt > 2 else None
        many = attempts.with_newest(many, withdrawn) if withdrawn is not None else many
        many = attempts.with_new_attempt(many, 2, NOW + timedelta(seconds=1))
    numbers = [attempt.number for attempt in many.attempts]
    assert len(numbers) == 20
    assert numbers[:2] == [1, 2], "why it was disrupted and why it failed"
    assert numbers[-10:] == list(range(53, 63))
    assert numbers == sorted(numbers)
