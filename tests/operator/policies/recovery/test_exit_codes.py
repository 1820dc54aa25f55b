"""spec.recovery.exitCodes: what a rule changes, what it never changes, and that an ignored end has a limit."""

from itertools import pairwise
from typing import Any

import pytest

from distill_api.constants import Outcome, Phase
from distill_api.job import DistillJob
from distill_api.reasons import Reason
from distill_operator.builders.job import build_job
from distill_operator.policies.recovery import backoff, budgets, classify, progress_guard
from distill_operator.types.observed import ContainerEnd, PodFacts
from tests.support.operator.cluster import Cluster
from tests.support.operator.samples import (
    SETTINGS,
    UID,
    at,
    attempt,
    child,
    disrupted,
    ended,
    job,
    observed,
    pod,
    report,
    status,
)
from tests.support.operator.world import VOLUMES

FATAL, IGNORED = Reason.FAIL_JOB_EXIT_CODE, Reason.IGNORED_EXIT_CODE
RULES = [{"values": [42, 1], "action": "FailJob"}, {"values": [75, 137, 139], "action": "Ignore"}]


def ruled(rules: Any = RULES, **recovery: Any) -> DistillJob:
    return job(recovery={"exitCodes": rules, **recovery}, volumes=VOLUMES)


def cause(*pods: PodFacts, **fields: Any) -> Reason | None:
    fields.setdefault("jobs", (child(),))
    notice = classify.cause(observed(ruled(), *pods, **fields), 1, "job-1", at(60))
    return notice.reason if notice else None


def beside(name: str, code: int, *, init: bool = False, reason: str = "Error") -> dict[str, Any]:
    return {"phase": "Failed", "end": ContainerEnd(name, code, at(10), reason, init=init)}


ENDS = {
    "a code that fails the job": (FATAL, ended(10, 42)),
    "a code that is ignored": (IGNORED, ended(10, 75)),
    "a signal's code": (IGNORED, ended(10, 139)),
    "a code without a rule": (Reason.TRAINER_ERROR, ended(10, 43)),
    "out of memory has the code 137": (IGNORED, ended(10, 137, reason="OOMKilled")),
    "a failure that the trainer reports": (FATAL, ended(10, 1, report("failed", Reason.OUT_OF_MEMORY))),
    "a script that hides the trainer's own failure": (IGNORED, ended(10, 75, report("failed"))),
    "a script that hides a permanent mistake": (
        Reason.PAIR_MISMATCH,
        ended(10, 75, report("permanent", Reason.PAIR_MISMATCH)),
    ),
    "a script that hides a stop": (Reason.STOPPED, ended(10, 75, report("stopped", Reason.STOPPED))),
    "a rank that only lost its peer": (Reason.PEER_LOST, ended(10, 1, report("failed", Reason.PEER_LOST))),
    "the trainer's own permanent code": (Reason.CONFIG_INVALID, ended(10, 78)),
    "another container's code": (Reason.TRAINER_ERROR, beside("logs", 42)),
    "an init container's code": (Reason.INIT_CONTAINER, beside("trainer", 42, init=True)),
    "a pod that was deleted and ended with the code": (Reason.POD_DELETED, {"deleted_at": at(10), **ended(20, 75)}),
    "a pod that was preempted and ended with the code": (Reason.PREEMPTED, {**disrupted(10), **ended(12, 42)}),
}


@pytest.mark.parametrize(("expected", "fields"), ENDS.values(), ids=ENDS.keys())
def test_a_rule_says_what_an_exit_code_means_and_not_more(expected: Reason, fields: dict[str, Any]) -> None:
    assert cause(pod(1, **fields), pod(0)) == expected


def test_the_cause_is_found_first_and_then_the_rule_applies() -> None:
    echo = ended(9, 1, report("failed", Reason.PEER_LOST))
    assert cause(pod(0, **echo), pod(1, **ended(10, 75))) == IGNORED
    assert cause(pod(0, **echo), pod(1, **disrupted(10))) == Reason.PREEMPTED


def test_the_message_says_which_rule_applies() -> None:
    notice = classify.cause(observed(ruled(), pod(1, **ended(10, 42)), jobs=(child(),)), 1, "job-1", at(20))
    assert notice is not None
    assert "pod tiny-a1-1 on node node1" in notice.message
    assert "(exit code 42: spec.recovery.exitCodes says FailJob)" in notice.message


FAILED_WITH = "Container trainer for pod team/tiny-a1-1 failed with exit code {} matching FailJob rule at index 2"
GONE = {
    42: FATAL,
    75: IGNORED,
    78: Reason.CONFIG_INVALID,
    43: Reason.TRAINER_ERROR,  # the rules were changed meanwhile
    1: Reason.TRAINER_ERROR,  # may be an echo
    137: Reason.TRAINER_ERROR,
}


@pytest.mark.parametrize(("code", "expected"), GONE.items())
def test_the_jobs_condition_tells_the_code_when_pods_are_gone(code: int, expected: Reason) -> None:
    failed = {"failing_at": at(10), "failure_reason": "PodFailurePolicy"}
    assert cause(jobs=(child(**failed, failure_message=FAILED_WITH.format(code)),)) == expected


def test_the_job_of_an_attempt_names_codes_that_show_a_cause() -> None:
    rules = build_job(ruled([*RULES, {"values": [134], "action": "Ignore"}]), "team", 1, 2, SETTINGS)
    named = [rule["onExitCodes"] for rule in rules["spec"]["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    assert [codes["values"] for codes in named] == [[78], [42], [75, 139]]
    assert {codes["containerName"] for codes in named} == {"trainer"}


def test_an_older_trainer_is_not_told_of_rules_it_has_no_use_for() -> None:
    container = build_job(ruled(), "team", 1, 2, SETTINGS)["spec"]["template"]["spec"]["containers"][0]
    assert "exitCodes" not in container["env"][0]["value"]


def test_an_ignored_end_is_charged_to_no_budget_but_counts_and_backs_off() -> None:
    before = status(attempt(), restarts_without_progress=1, failures_without_progress=1)
    after = progress_guard.counted(budgets.charged(before, Outcome.WITHDRAWN), attempt(), IGNORED)
    assert (after.failures, after.preemptions) == (0, 0)
    assert (after.restarts_without_progress, after.failures_without_progress) == (2, 2)
    waits = [backoff.delay(IGNORED, Outcome.WITHDRAWN, n, UID, 1, SETTINGS) for n in (0, 1, 2, 9)]
    assert waits == [0.0, 10.0, 20.0, SETTINGS.backoff_cap]


def life(code: int, lives: int = 20) -> Cluster:
    """A job whose rank 1 always ends with this code, before anything is committed."""
    cluster = Cluster(dj=ruled(maxRestartsWithoutProgress=3, maxFailures=0))
    for _ in range(lives * 10):
        if cluster.dj.status.phase == Phase.FAILED:
            break
        for name in ("operate", "controllers", "kubelets", "operate"):
            cluster.step_world(name)
        for victim in [p for p in cluster.pods.values() if p.running and p.rank == 1]:
            cluster.set_pod(cluster.ended(victim, code, "Error", None))
        cluster.seconds += 5
    return cluster


def test_ignored_ends_without_progress_end_the_job_and_never_at_full_speed() -> None:
    cluster = life(75)
    over = cluster.dj.status
    assert (over.phase, over.failures, over.attempt) == (Phase.FAILED, 0, 4)
    assert [(a.outcome, a.reason) for a in over.attempts] == [(Outcome.WITHDRAWN, IGNORED)] * 4
    (failed,) = [c for c in over.conditions if c.type == "Failed"]
    assert failed.reason == Reason.NO_PROGRESS
    starts = [a.started_at for a in over.attempts]
    breaks = [(later - earlier).total_seconds() for earlier, later in pairwise(starts)]
    assert breaks == sorted(breaks)
    assert breaks[0] >= 10
    assert breaks[-1] >= 40


def test_a_code_that_fails_the_job_is_tried_once() -> None:
    over = life(42).dj.status
    assert (over.phase, over.attempt, over.failures) == (Phase.FAILED, 1, 1)
    (failed,) = [c for c in over.conditions if c.type == "Failed"]
    assert failed.reason == FATAL
