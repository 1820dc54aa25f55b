"""Whole lives of a job in the simulated cluster: one by one, with every fault at every moment, and at random."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_api.constants import ConditionType, Outcome, Phase
from distill_api.reasons import Reason
from distill_operator.plan.plan import make_plan
from distill_operator.status import conditions
from distill_operator.types.actions import Create, Delete
from distill_operator.types.observed import ClaimFacts, Rejection
from tests.support.operator.cluster import CRASHES, FAULTS, OUTAGES, Cluster
from tests.support.operator.samples import (
    CLAIMS,
    RESULT,
    SETTINGS,
    answer,
    at,
    attempt,
    child,
    closed,
    disrupted,
    done,
    ended,
    job,
    observed,
    pod,
    report,
    status,
)

PENDING = {"phase": "Pending", "scheduled_at": None, "unschedulable": "0/2 nodes are available"}
LIFE = [name for _ in range(9) for name in ("operate", "controllers", "operate", "kubelets", "operate", "train")]
DISRUPTED_BY = {"preempt": Reason.PREEMPTED, "evict": Reason.EVICTED, "delete_pod": Reason.POD_DELETED}
FAILED_BY = {"oom": Reason.OUT_OF_MEMORY, "kill": Reason.PROCESS_KILLED, "peer_lost": Reason.PEER_LOST}


def live(steps: Sequence[str | tuple[str, int]]) -> Cluster:
    cluster = Cluster()
    for step in steps:
        cluster.step_world(*((step,) if isinstance(step, str) else step))
    return cluster


def test_a_quiet_life() -> None:
    cluster = Cluster()
    phases = []
    for name in LIFE * 2:
        cluster.step_world(name)
        if not phases or phases[-1] != cluster.dj.status.phase:
            phases.append(cluster.dj.status.phase)
    assert phases == [Phase.STARTING, Phase.RUNNING, Phase.SUCCEEDED]
    over = cluster.dj.status
    assert [(a.number, a.outcome, a.reason) for a in over.attempts] == [(1, Outcome.SUCCEEDED, Reason.COMPLETED)]
    assert over.restarts == "0/0"
    assert over.result is not None
    complete = conditions.find(over.conditions, ConditionType.COMPLETE)
    assert complete is not None
    assert complete.status == "True"
    assert list(cluster.jobs) == ["tiny-a1"], "the last Job stays, with the pods whose logs it holds"
    assert not cluster.services


@pytest.mark.parametrize("crash", ["operate", *CRASHES])
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("fault", [*DISRUPTED_BY, *FAILED_BY])
def test_one_fault_in_mid_training_is_charged_once_and_the_job_goes_on(fault: str, rank: int, crash: str) -> None:
    cluster = live([*LIFE[:12], "commit", "train", "operate", (fault, rank)])
    if crash != "forget":
        cluster.step_world("operate")
    cluster.step_world(crash)
    over = cluster.settle()
    assert over.phase == Phase.SUCCEEDED
    disrupted = fault in DISRUPTED_BY
    assert over.restarts == ("0/1" if disrupted else "1/0")
    first, second = over.attempts
    assert first.reason == {**DISRUPTED_BY, **FAILED_BY}[fault]
    assert second.resumed_from_step == first.committed_step or second.resumed_from_step == cluster.resumed[2]
    assert second.lost_steps is not None


@pytest.mark.parametrize("moment", range(len(LIFE)))
@pytest.mark.parametrize("fault", FAULTS)
def test_any_fault_at_any_moment_ends_well(fault: str, moment: int) -> None:
    over = live([*LIFE[:moment], (fault, 0), *LIFE[moment:]]).settle()
    assert over.phase == Phase.SUCCEEDED


@pytest.mark.parametrize("moment", range(len(LIFE)))
@pytest.mark.parametrize("crash", CRASHES)
def test_an_operator_that_dies_in_any_pass_changes_nothing(crash: str, moment: int) -> None:
    over = live([*LIFE[:moment], crash, *LIFE[moment:]]).settle()
    assert (over.phase, over.restarts, over.attempt) == (Phase.SUCCEEDED, "0/0", 1)


@pytest.mark.parametrize("moment", range(len(LIFE)))
def test_suspending_at_any_moment_costs_nothing(moment: int) -> None:
    rest = [*(("operate", "controllers", "kubelets") * 5), "operate"]
    cluster = live([*LIFE[:moment], "suspend", *rest])
    if cluster.dj.status.phase != Phase.SUCCEEDED:
        assert cluster.dj.status.phase == Phase.SUSPENDED
        assert not [p for p in cluster.pods.values() if p.live]
        assert all(a.reason == Reason.SUSPENDED_BY_USER for a in cluster.dj.status.attempts)
    over = cluster.settle()
    assert (over.phase, over.restarts) == (Phase.SUCCEEDED, "0/0")


STEPS = (
    "operate", "controllers", "kubelets", "train", "commit", "wait", "suspend", "resume",
    *FAULTS, *OUTAGES, *CRASHES,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 1)), max_size=80))
def test_whatever_happens_the_invariants_hold_and_the_job_ends(story: list[tuple[str, int]]) -> None:
    over = live(story).settle()
    if over.phase == Phase.FAILED:
        failed = conditions.find(over.conditions, ConditionType.FAILED)
        assert failed is not None
        assert failed.reason in (Reason.FAILURE_BUDGET_EXCEEDED, Reason.NO_PROGRESS)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 1)), max_size=60))
def test_planning_again_on_ones_own_result_does_nothing(story: list[tuple[str, int]]) -> None:
    cluster = live(story)
    for _ in range(3):  # a pass may open an attempt, see its Job, and clear what is left; no more
        cluster.operate()
    again = cluster.plan()
    assert again.status is None
    assert not again.events
    assert not [action for action in again.actions if isinstance(action, Create)]


# Decisions that the cluster above does not come to.


def test_success_needs_the_record_and_not_the_phase_of_the_pods() -> None:
    running = status(attempt())
    over = [pod(rank, **ended(5, 0)) for rank in (0, 1)]
    plan = make_plan(observed(job(running), *over, jobs=(child(complete=True),)), at(6), SETTINGS)
    assert plan.status is not None
    assert plan.status.attempts[0].reason == Reason.NO_COMPLETION_RECORD
    assert (plan.status.phase, plan.status.restarts) == (Phase.RECOVERING, "1/0")


def test_a_record_outdoes_everything_else_that_happened() -> None:
    running = status(attempt(reason=Reason.PREEMPTED, message="why", ended_at=at(4)))
    pods = (pod(0, **{**disrupted(4), **ended(5, 0, done())}), pod(1, **ended(6, 1)))
    plan = make_plan(observed(job(running), *pods, jobs=(child(failing_at=at(6)),)), at(7), SETTINGS)
    assert plan.status is not None
    assert (plan.status.phase, plan.status.restarts) == (Phase.SUCCEEDED, "0/0")


def test_a_permanent_error_ends_the_job_with_the_trainers_own_words() -> None:
    reason = Reason.MODEL_NOT_FOUND
    wrong = report("permanent", reason, message="models/x.pt does not exist; put it there")
    pods = (pod(0, **ended(5, 78, wrong)), pod(1, **ended(6, 1, report("failed", Reason.PEER_LOST))))
    running = status(attempt(), phase=Phase.STARTING)
    plan = make_plan(observed(job(running), *pods, jobs=(child(failing_at=at(6)),)), at(7), SETTINGS)
    assert plan.status is not None
    assert plan.status.phase == Phase.FAILED
    for kind, holds in ((ConditionType.FAILED, "True"), (ConditionType.VALIDATED, "False")):
        told = conditions.find(plan.status.conditions, kind)
        assert told is not None
        assert (told.status, told.reason, told.message) == (
            holds,
            reason,
            "models/x.pt does not exist; put it there",
        )


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
        (Rejection("Job tiny-a1", "violates PodSecurity"), Phase.FAILED, Reason.POD_REJECTED),
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


def test_a_job_of_another_owner_is_never_touched() -> None:
    opened = status(attempt(job_uid=None), phase=Phase.STARTING)
    foreign = observed(job(opened), jobs=(child(owned=False),))
    assert not [a for a in make_plan(foreign, at(99999), SETTINGS).actions if isinstance(a, Delete)]


def test_pods_of_an_earlier_job_with_the_same_name_are_waited_for() -> None:
    plan = make_plan(observed(job(), pod(0, number=0)), at(0), SETTINGS)
    assert plan.status is not None
    assert (plan.status.attempt, plan.status.phase) == (0, Phase.PENDING)


def test_a_deadline_ends_attempt_and_job_without_a_charge() -> None:
    running = status(attempt(running_at=at(1)))
    limited = job(running, activeDeadlineSeconds=60)
    first = make_plan(observed(limited, pod(0), pod(1), jobs=(child(),)), at(60), SETTINGS)
    assert first.status is not None
    assert first.status.phase == Phase.RECOVERING
    assert [a.name for a in first.actions if isinstance(a, Delete)] == ["tiny-a1"]
    gone = limited.model_copy(update={"status": first.status})
    last = make_plan(observed(gone), at(70), SETTINGS).status
    assert last is not None
    assert (last.phase, last.restarts) == (Phase.FAILED, "0/0")
    assert last.attempts[0].outcome == Outcome.WITHDRAWN


def test_a_stall_is_a_failure_that_deletes_the_gang_after_it_is_stored() -> None:
    running = status(attempt(running_at=at(1), stepped_at=at(1), step=5))
    plan = make_plan(observed(job(running), pod(0), pod(1), jobs=(child(),)), at(601), SETTINGS)
    assert plan.status is not None
    assert plan.status.attempts[0].reason == Reason.STALLED
    assert plan.status.attempts[0].outcome == Outcome.RUNNING, "charged when the gang is gone, not before"
    assert [type(a) for a in plan.actions] == [Delete]


def test_a_gang_that_does_not_end_is_deleted_after_the_grace_period() -> None:
    ending = status(attempt(reason=Reason.PREEMPTED, message="why", ended_at=at(0)), phase=Phase.RECOVERING)
    seen = observed(job(ending), pod(0), jobs=(child(failing_at=at(1)),))
    assert not make_plan(seen, at(89), SETTINGS).actions
    assert [type(a) for a in make_plan(seen, at(90), SETTINGS).actions] == [Delete]


def test_a_job_that_is_being_deleted_is_left_alone() -> None:
    plan = make_plan(observed(job(), deleting=True), at(0), SETTINGS)
    assert (plan.status, plan.actions, plan.events) == (None, (), ())


def test_ttl_deletes_the_finished_job_and_nothing_runs_again() -> None:
    finished = status(closed(1), phase=Phase.SUCCEEDED, finished_at=at(0))
    kept = job(finished, ttlSecondsAfterFinished=60)
    waiting = make_plan(observed(kept, jobs=(child(complete=True),)), at(20), SETTINGS)
    assert (waiting.actions, waiting.wake_after) == ((), 40)
    gone = make_plan(observed(kept, jobs=()), at(60), SETTINGS)
    assert [(a.kind, a.name) for a in gone.actions if isinstance(a, Delete)] == [("DistillJob", "tiny")]


def test_nothing_of_a_finished_job_ever_changes() -> None:
    for phase in (Phase.SUCCEEDED, Phase.FAILED):
        finished = status(closed(1), phase=phase, finished_at=at(0))
        for seen in (observed(job(finished)), observed(job(finished, suspend=True), pod(0), claims=())):
            plan = make_plan(seen, at(99999), SETTINGS)
            assert plan.status is None
            assert not [a for a in plan.actions if isinstance(a, Create)]


def test_a_queue_may_hold_the_gang_for_as_long_as_it_likes() -> None:
    starting = status(attempt(), phase=Phase.STARTING)
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


def test_a_job_that_its_queue_suspends_again_waits_for_its_next_admission() -> None:
    starting = job(status(attempt(), phase=Phase.STARTING))
    held = make_plan(observed(starting, jobs=(child(suspended=True),)), at(100), SETTINGS).status
    assert held is not None
    assert held.attempts[0].admitted_at is None
    again = make_plan(observed(job(held), jobs=(child(),)), at(9000), SETTINGS).status
    assert again is not None
    assert (again.attempts[0].reason, again.attempts[0].admitted_at) == (None, at(9000))


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


def test_the_result_is_stored_before_rank_zero_can_be_gone() -> None:
    running = status(attempt())
    pods = (pod(0, **ended(5, 0, done())), pod(1))
    first = make_plan(observed(job(running), *pods, jobs=(child(),)), at(5), SETTINGS).status
    assert first is not None
    assert first.phase == Phase.RUNNING
    last = make_plan(observed(job(first), jobs=(child(complete=True),)), at(9), SETTINGS).status
    assert last is not None
    assert last.phase == Phase.SUCCEEDED
    assert last.result == RESULT


def test_a_finished_job_has_no_eta() -> None:
    running = status(attempt())
    told = answer(50, eta_seconds=80)
    mid = make_plan(observed(job(running), pod(0), pod(1), jobs=(child(),), trainer=told), at(1), SETTINGS).status
    assert mid is not None
    assert mid.progress is not None
    assert mid.progress.eta == "1m"
    pods = [pod(0, **ended(5, 0, done())), pod(1, **ended(5, 0))]
    over = make_plan(observed(job(mid), *pods, jobs=(child(complete=True),)), at(9), SETTINGS).status
    assert over is not None
    assert over.progress is not None
    assert (over.progress.eta, over.progress.eta_seconds, over.progress.step) == (None, None, 50)
