"""A template that the contract refuses creates no pod, however it came to be stored."""

from typing import Any

import pytest

from distill_api.constants import ConditionType, Phase
from distill_api.reasons import Reason
from distill_operator.plan.plan import make_plan
from distill_operator.status import conditions
from distill_operator.types.actions import Create, Plan
from tests.support.operator.samples import SETTINGS, answer, at, attempt, child, closed, job, observed, pod, status

TOKEN = {"serviceAccountToken": {"path": "token"}}
STOLEN: dict[str, Any] = {
    "spec": {"serviceAccount": "admin", "volumes": [{"name": "token", "projected": {"sources": [TOKEN]}}]}
}
"""Any account of the namespace, and its token."""


def created(plan: Plan) -> list[str]:
    return [action.what for action in plan.actions if isinstance(action, Create)]


def test_a_stored_job_with_a_refused_template_waits_before_any_pod() -> None:
    plan = make_plan(observed(job(template=STOLEN)), at(0), SETTINGS)
    assert created(plan) == []
    assert plan.status is not None
    assert (plan.status.phase, plan.status.attempt) == (Phase.PENDING, 0)
    told = conditions.find(plan.status.conditions, ConditionType.VALIDATED)
    assert told is not None
    assert (told.status, told.reason) == ("False", Reason.TEMPLATE_REFUSED)
    assert "template.spec.serviceAccount would give" in told.message
    assert "volumes.0.projected.sources.0: serviceAccountToken would give" in told.message
    corrected = make_plan(observed(job(plan.status)), at(9), SETTINGS)
    assert "Job tiny-a1" in created(corrected)


def test_no_further_attempt_starts_from_a_refused_template() -> None:
    plan = make_plan(observed(job(status(closed(1), phase=Phase.RECOVERING), template=STOLEN)), at(99), SETTINGS)
    assert created(plan) == []
    assert plan.status is not None
    assert (plan.status.phase, plan.status.attempt) == (Phase.RECOVERING, 1)


def test_an_attempt_without_its_job_gets_none_from_a_refused_template() -> None:
    decided = attempt(job_uid=None, admitted_at=None)
    plan = make_plan(observed(job(status(decided, phase=Phase.STARTING), template=STOLEN)), at(1), SETTINGS)
    assert created(plan) == []
    assert plan.status is not None
    assert (plan.status.restarts, plan.status.attempts[0].reason) == ("0/0", Reason.TEMPLATE_REFUSED)


def test_a_gang_that_trains_already_is_left_alone() -> None:
    running = job(status(attempt(running_at=at(1))), template=STOLEN)
    plan = make_plan(observed(running, pod(0), pod(1), jobs=(child(),), trainer=answer(5)), at(9), SETTINGS)
    assert (created(plan), plan.status and plan.status.phase) == ([], Phase.RUNNING)


@pytest.mark.parametrize("refused", [False, True])
def test_no_placeholder_is_made_from_a_refused_template(refused: bool) -> None:
    small = attempt(nodes=2, running_at=at(1), grow_at=at(5))
    of = job(status(small), nodes=4, elastic={}, template=STOLEN if refused else None)
    plan = make_plan(observed(of, pod(0), pod(1), jobs=(child(),), trainer=answer(5)), at(9), SETTINGS)
    assert created(plan) == ([] if refused else ["Job tiny-grow"])


def test_a_suspended_jobs_template_may_still_be_corrected() -> None:
    plan = make_plan(observed(job(template=STOLEN, suspend=True)), at(0), SETTINGS)
    assert plan.status is not None
    assert plan.status.phase == Phase.SUSPENDED
