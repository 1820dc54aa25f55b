"""recipe: auto: what a job trains is in its status, and stays what it started with."""

from typing import Any

from distill_api.constants import Env, Outcome, Phase
from distill_api.job import DistillJob
from distill_api.pod.run import RunConfig
from distill_api.reasons import Reason
from distill_api.spec.recipe import chosen
from distill_api.status import DistillJobStatus
from distill_operator.plan.plan import make_plan
from distill_operator.types import attempts
from distill_operator.types.actions import Create
from tests.support.operator.samples import SETTINGS, at, attempt, job, observed, status

OLDER = {"student": {"init": "inherit"}, "distillation": {"terms": [{"loss": "spkd"}]}}
"""What an older operator may have chosen."""


def started(of: DistillJob) -> tuple[DistillJobStatus, RunConfig]:
    plan = make_plan(observed(of), at(700), SETTINGS)
    assert plan.status is not None
    (made,) = (a.manifest for a in plan.actions if isinstance(a, Create) and a.manifest["kind"] == "Job")
    (trainer,) = (c for c in made["spec"]["template"]["spec"]["containers"] if c["name"] == "trainer")
    (text,) = (variable["value"] for variable in trainer["env"] if variable["name"] == Env.RUN)
    return plan.status, RunConfig.model_validate_json(text)


def disrupted(**fields: Any) -> DistillJobStatus:
    """After an attempt that was disrupted."""
    over = attempt(outcome=Outcome.DISRUPTED, reason=Reason.DISRUPTED, ended_at=at(100), **fields)
    return status(over, phase=Phase.RECOVERING, recipe=OLDER)


def test_the_status_and_the_trainer_have_what_auto_chose() -> None:
    asked = job(recipe="auto")
    after, run = started(asked)
    assert after.recipe == run.recipe == chosen(asked.spec)
    assert run.spec.student.init == "inherit"
    assert run.spec.recipe == "ultralytics"


def test_other_jobs_have_none() -> None:
    after, run = started(job())
    assert (after.recipe, run.recipe) == (None, None)


def test_a_job_that_has_committed_keeps_what_an_older_operator_chose() -> None:
    after, run = started(job(disrupted(committed_step=5, step=7), recipe="auto"))
    assert after.recipe == run.recipe == OLDER
    assert [term.loss for term in run.spec.distillation.terms] == ["spkd"]


def test_until_then_the_next_attempt_takes_what_is_best_now() -> None:
    asked = job(disrupted(), recipe="auto")
    after, run = started(asked)
    assert after.recipe == run.recipe == chosen(asked.spec) != OLDER


def test_while_an_attempt_runs_its_recipe_stays_in_the_status() -> None:
    asked = job(status(attempt(running_at=at(0)), recipe=OLDER), recipe="auto")
    assert attempts.recipe(asked.status, asked.spec) == OLDER


def test_a_recipe_that_was_taken_back_leaves_the_status() -> None:
    after, run = started(job(disrupted(), recipe="ultralytics"))
    assert (after.recipe, run.recipe) == (None, None)
