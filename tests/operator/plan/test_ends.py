"""How a job ends: with a result, for good, at a deadline; and what is left alone afterwards."""

from dataclasses import replace

import pytest

from distill_api.constants import ConditionType, Outcome, Phase
from distill_api.reasons import Reason
from distill_operator.plan.plan import make_plan
from distill_operator.status import conditions
from distill_operator.types.actions import Create, Delete, Plan
from distill_operator.types.observed import JobFacts, Placeholders
from tests.support.operator.samples import (
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


def test_success_needs_the_record_and_not_the_phase_of_the_pods() -> None:
    running = status(attempt())
    over = [pod(rank, **ended(5, 0)) for rank in (0, 1)]
    plan = make_plan(observed(job(running), *over, jobs=(child(complete=True),)), at(6), SETTINGS)
    assert plan.status is not None
    assert plan.status.attempts[0].reason == Reason.NO_COMPLETION_RECORD
    assert (plan.status.phase, plan.status.restarts) == (Phase.RECOVERING, "1/0")


def test_a_check_succeeds_by_what_it_has_found_and_has_no_result() -> None:
    found = report("done", Reason.CHECKED, message="tiny.yaml can learn from large.pt")
    for asked, reason in ((True, Reason.CHECKED), (False, Reason.NO_COMPLETION_RECORD)):
        checked = job(status(attempt(nodes=1)), check_only=asked, nodes=1, accelerators={"perNode": 0})
        seen = observed(checked, pod(0, **ended(5, 0, found)), jobs=(child(complete=True),))
        plan = make_plan(seen, at(6), SETTINGS)
        assert plan.status is not None
        assert plan.status.attempts[0].reason == reason
        assert plan.status.result is None
    over = make_plan(
        observed(job(status(closed(1, Reason.CHECKED, outcome=Outcome.SUCCEEDED, message="well")))), at(6), SETTINGS
    )
    assert over.status is not None
    told = conditions.find(over.status.conditions, ConditionType.COMPLETE)
    assert told is not None
    assert (told.status, told.reason, told.message) == ("True", Reason.CHECKED, "well")
    assert [event.reason for event in over.events] == [Reason.CHECKED]


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


def test_a_deadline_ends_attempt_and_job_without_a_charge() -> None:
    running = status(attempt(running_at=at(1)), active_since=at(0))
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
    idle = answer(5).model_copy(update={"idle_seconds": 600.0})
    plan = make_plan(observed(job(running), pod(0), pod(1), jobs=(child(),), trainer=idle), at(601), SETTINGS)
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
        finished = status(closed(1), phase=phase, finished_at=at(0), observed_generation=1)
        for seen in (observed(job(finished)), observed(job(finished, suspend=True), pod(0), claims=())):
            plan = make_plan(seen, at(99999), SETTINGS)
            assert plan.status is None
            assert not [a for a in plan.actions if isinstance(a, Create)]


@pytest.mark.parametrize(("policy", "gone"), [("None", []), ("All", ["tiny-a1"])])
def test_the_pods_of_a_finished_job_stay_with_their_logs_unless_asked(policy: str, gone: list[str]) -> None:
    finished = status(closed(1), phase=Phase.SUCCEEDED, finished_at=at(0), observed_generation=1)
    over = observed(job(finished, cleanPodPolicy=policy), jobs=(child(complete=True),))
    assert [action.name for action in make_plan(over, at(9), SETTINGS).actions if isinstance(action, Delete)] == gone


def test_a_finished_job_whose_spec_changes_shows_that_it_was_seen() -> None:
    finished = status(closed(1), phase=Phase.SUCCEEDED, finished_at=at(0), observed_generation=1)
    changed = job(finished, ttlSecondsAfterFinished=60)
    changed = changed.model_copy(update={"metadata": changed.metadata.model_copy(update={"generation": 2})})
    plan = make_plan(observed(changed), at(9), SETTINGS)
    assert plan.status == finished.model_copy(update={"observed_generation": 2})
    assert not plan.events


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


def deleted(plan: Plan) -> list[str]:
    return [f"{action.kind} {action.name}" for action in plan.actions if isinstance(action, Delete)]


def test_a_job_that_a_late_request_makes_after_the_end_is_deleted() -> None:
    end = closed(1, Reason.COMPLETED, outcome=Outcome.SUCCEEDED)
    over = job(status(end, phase=Phase.SUCCEEDED, finished_at=at(0)))
    for last, gone in ((child(), ["Job tiny-a1"]), (child(complete=True), []), (child(deleting=True), [])):
        assert deleted(make_plan(observed(over, jobs=(last,)), at(60), SETTINGS)) == gone
    assert deleted(make_plan(observed(over, jobs=(child(owned=False),)), at(60), SETTINGS)) == []


def test_placeholders_that_a_crash_left_are_deleted_after_the_end() -> None:
    end = closed(1, Reason.COMPLETED, outcome=Outcome.SUCCEEDED)
    over = job(status(end, phase=Phase.SUCCEEDED, finished_at=at(0)))
    grow = JobFacts("tiny-grow", "grow", 0, owned=True, created_at=at(0))
    for held, gone in ((grow, ["Job tiny-grow"]), (replace(grow, deleting=True), [])):
        assert deleted(make_plan(observed(over, placeholders=Placeholders(held)), at(60), SETTINGS)) == gone


def test_no_job_is_failed_while_a_late_job_may_start_pods() -> None:
    spent = job(status(closed(1), closed(2, Reason.TRAINER_ERROR, outcome=Outcome.FAILED), failures=4))
    waits = make_plan(observed(spent, jobs=(child(1), child(2, failing_at=at(5)))), at(60), SETTINGS)
    assert waits.status is not None
    assert waits.status.phase == Phase.RECOVERING
    assert waits.status.waiting is not None
    assert waits.status.waiting.reason == Reason.PODS_TERMINATING
    assert deleted(waits) == ["Job tiny-a1"]
    over = make_plan(observed(spent, pod(0, attempt=0), jobs=(child(2, failing_at=at(5)),)), at(60), SETTINGS)
    assert over.status is not None
    assert over.status.phase == Phase.FAILED, "pods of an earlier DistillJob of this name do not keep it from ending"
