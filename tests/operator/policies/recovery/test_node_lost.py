"""A node that does not answer: its pods are considered lost after the documented wait, and the job goes on."""

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_api.constants import ConditionType, Phase
from distill_api.job import DistillJob
from distill_api.reasons import Reason
from distill_operator.plan.plan import make_plan
from distill_operator.policies.recovery import node_lost
from distill_operator.status import conditions
from distill_operator.types.actions import Delete
from distill_operator.types.observed import PodFacts
from tests.support.operator.cluster import Cluster
from tests.support.operator.samples import (
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
from tests.support.operator.world import NODES, UNREACHABLE_SECONDS

DARK: dict[str, Any] = {"deleted_at": at(11), "end_due_at": at(71)}
"""Deletion was asked for, and nobody has confirmed it."""


@pytest.mark.parametrize(
    ("fields", "seconds", "expected"),
    [
        (DARK, 130, False),
        (DARK, 131, True),
        ({}, 99999, False),
        ({**DARK, **ended(70, 143)}, 99999, False),
        ({**DARK, "gone": True}, 99999, False),
        ({**DARK, "phase": "Pending"}, 131, True),
    ],
)
def test_a_pod_is_given_up_when_its_node_confirms_nothing(
    fields: dict[str, Any], seconds: float, expected: bool
) -> None:
    assert node_lost.presumed_lost(pod(1, **fields), 60, at(seconds)) is expected


def removed(of: DistillJob, pods: tuple[PodFacts, ...], now: datetime, **seen: Any) -> list[str]:
    actions = make_plan(observed(of, *pods, **seen), now, SETTINGS).actions
    return [action.name for action in actions if isinstance(action, Delete) and action.kind == "Pod" and action.at_once]


def test_a_node_without_power_is_a_disruption_and_the_next_attempt_starts() -> None:
    lost = pod(0, **ended(10, 1, report("failed", Reason.PEER_LOST)))
    dark = pod(1, **DARK)
    running = job(status(attempt(running_at=at(1), stepped_at=at(9), step=5)))
    seen = {"jobs": (child(failing_at=at(11)),)}
    early = make_plan(observed(running, lost, dark, **seen), at(45), SETTINGS).status
    assert early is not None
    assert early.attempts[0].reason == Reason.PEER_LOST
    running = running.model_copy(update={"status": early})
    assert removed(running, (lost, dark), at(130), **seen) == []
    waiting = make_plan(observed(running, lost, dark, **seen), at(100), SETTINGS).status
    assert waiting is not None
    told = conditions.find(waiting.conditions, ConditionType.RUNNING)
    assert told is not None
    assert told.reason == Reason.NODE_LOST
    assert "tiny-a1-1 on node node1 are past their grace period" in told.message
    assert "starts without them at 12:02:11Z (spec.recovery.nodeLostTimeoutSeconds)" in told.message

    late = make_plan(observed(running, lost, dark, **seen), at(131), SETTINGS)
    assert late.status is not None
    assert (late.status.attempt, late.status.attempts[0].reason) == (1, Reason.NODE_LOST)
    assert removed(running, (lost, dark), at(131), **seen) == ["tiny-a1-1"]
    of_job = [action.name for action in late.actions if isinstance(action, Delete) and action.kind == "Job"]
    assert of_job == ["tiny-a1"], "a Job that lives keeps the objects of its pods"
    running = running.model_copy(update={"status": late.status})
    next_one = make_plan(observed(running, lost, **seen), at(132), SETTINGS).status
    assert next_one is not None
    assert (next_one.attempt, next_one.restarts) == (2, "0/1")


def test_a_pass_comes_when_the_wait_begins_and_when_it_is_over() -> None:
    ending = status(attempt(reason=Reason.PREEMPTED, message="why", ended_at=at(11)), phase=Phase.RECOVERING)
    short = job(ending, recovery={"nodeLostTimeoutSeconds": 10})
    seen = observed(short, pod(1, **DARK), jobs=(child(failing_at=at(11)),))
    assert make_plan(seen, at(12), SETTINGS).wake_after == 59
    assert make_plan(seen, at(71), SETTINGS).wake_after == 10


def test_the_wait_is_the_users() -> None:
    ending = status(attempt(reason=Reason.NODE_LOST, message="why", ended_at=at(11)), phase=Phase.RECOVERING)
    patient = job(ending, recovery={"nodeLostTimeoutSeconds": 600})
    assert removed(patient, (pod(1, **DARK),), at(670), jobs=(child(),)) == []
    assert removed(patient, (pod(1, **DARK),), at(671), jobs=(child(),)) == ["tiny-a1-1"]


@pytest.mark.parametrize("reason", [Reason.STALLED, Reason.PEER_LOST])
def test_what_a_lost_node_explains_is_no_failure(reason: Reason) -> None:
    ending = status(attempt(reason=reason, message="why", ended_at=at(11)), phase=Phase.RECOVERING)
    late = make_plan(observed(job(ending), pod(1, **DARK), jobs=(child(deleting=True),)), at(131), SETTINGS).status
    assert late is not None
    assert late.attempts[0].reason == Reason.NODE_LOST


def test_a_lost_node_ends_the_wait_for_the_cause_of_a_broken_connection() -> None:
    lost = pod(0, **ended(10, 1, report("failed", Reason.PEER_LOST)))
    dark = pod(1, deleted_at=at(11), end_due_at=at(21))
    running = job(status(attempt(running_at=at(1))), recovery={"nodeLostTimeoutSeconds": 2})
    seen = {"jobs": (child(failing_at=at(11)),)}
    early = make_plan(observed(running, lost, dark, **seen), at(22), SETTINGS).status
    assert early is None or early.attempts[0].reason is None
    late = make_plan(observed(running, lost, dark, **seen), at(23), SETTINGS).status
    assert late is not None
    assert late.attempts[0].reason == Reason.NODE_LOST
    assert removed(running, (lost, dark), at(23), **seen) == ["tiny-a1-1"]


@pytest.mark.parametrize("by", ["DeletionByPodGC", "DeletionByTaintManager"])
def test_a_node_that_is_deleted_later_explains_a_broken_connection(by: str) -> None:
    lost = pod(0, **ended(10, 1, report("failed", Reason.PEER_LOST)))
    swept = pod(1, **disrupted(55, by), gone=True)
    ending = status(attempt(reason=Reason.PEER_LOST, message="why", ended_at=at(40)), phase=Phase.RECOVERING)
    late = make_plan(observed(job(ending), lost, swept, jobs=(child(failing_at=at(11)),)), at(56), SETTINGS).status
    assert late is not None
    assert (late.attempts[0].reason, late.restarts) == (Reason.NODE_LOST, "0/1")


def test_another_cause_stays_what_it_is() -> None:
    ending = status(attempt(reason=Reason.OUT_OF_MEMORY, message="why", ended_at=at(11)), phase=Phase.RECOVERING)
    pods = (pod(1, **DARK),)
    late = make_plan(observed(job(ending), *pods, jobs=(child(deleting=True),)), at(131), SETTINGS)
    assert late.status is not None
    assert late.status.attempts[0].reason == Reason.OUT_OF_MEMORY
    assert removed(job(ending), pods, at(131), jobs=(child(deleting=True),)) == ["tiny-a1-1"]


@pytest.mark.parametrize("suspend", [False, True])
def test_stray_pods_of_an_earlier_gang_are_given_up_as_well(suspend: bool) -> None:
    before = job(status(closed(1), phase=Phase.RECOVERING), suspend=suspend)
    strays = (pod(1, number=0, **DARK),)
    assert removed(before, strays, at(130)) == []
    assert removed(before, strays, at(131)) == ["tiny-a0-1"]


def test_a_node_that_is_evicted_for_being_unreachable_is_told_at_once() -> None:
    gone = {**disrupted(5, "DeletionByTaintManager"), "end_due_at": at(65)}
    running = job(status(attempt(running_at=at(1))))
    plan = make_plan(observed(running, pod(0), pod(1, **gone), jobs=(child(),)), at(6), SETTINGS)
    assert plan.status is not None
    assert plan.status.attempts[0].reason == Reason.NODE_LOST


PATIENT = replace(SETTINGS, forced_pod_deletion=False)


@pytest.mark.parametrize("suspend", [False, True])
def test_without_forced_deletion_the_job_waits_and_says_for_what(suspend: bool) -> None:
    ending = status(attempt(reason=Reason.PEER_LOST, message="why", ended_at=at(11)), phase=Phase.RECOVERING)
    between = status(closed(1), phase=Phase.RECOVERING)
    for before, number in ((ending, 1), (between, 0)):
        of = job(before, suspend=suspend)
        plan = make_plan(observed(of, pod(1, number=number, **DARK), jobs=(child(deleting=True),)), at(99999), PATIENT)
        assert [action for action in plan.actions if isinstance(action, Delete) and action.kind == "Pod"] == []
        assert plan.status is not None
        assert plan.status.attempt == 1
        told = conditions.find(plan.status.conditions, ConditionType.RUNNING)
        assert told is not None
        assert told.reason == Reason.NODE_LOST
        assert f"tiny-a{number}-1 on node node1 are past their grace period" in told.message
        assert "forbids forced deletion" in told.message
        assert "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute" in told.message


def test_a_lost_node_explains_a_stall_without_forced_deletion_too() -> None:
    ending = status(attempt(reason=Reason.STALLED, message="why", ended_at=at(11)), phase=Phase.RECOVERING)
    late = make_plan(observed(job(ending), pod(1, **DARK), jobs=(child(deleting=True),)), at(131), PATIENT).status
    assert late is not None
    assert late.attempts[0].reason == Reason.NODE_LOST


TRAINING = [name for _ in range(3) for name in ("operate", "controllers", "operate", "kubelets", "operate", "train")]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("echo", [True, False])
def test_a_life_with_a_node_that_never_comes_back(rank: int, echo: bool) -> None:
    cluster = Cluster()
    for name in [*TRAINING, "commit"]:
        cluster.step_world(name)
    cluster.step_world("darken", rank)
    if echo:
        cluster.step_world("peer_lost", 1 - rank)
    over = cluster.settle()
    assert (over.phase, over.restarts) == (Phase.SUCCEEDED, "0/1")
    first, second = over.attempts
    assert first.reason == Reason.NODE_LOST
    assert second.resumed_from_step == cluster.resumed[2] > 0
    waited = (second.started_at - (first.ended_at or at(0))).total_seconds()
    assert waited < UNREACHABLE_SECONDS + 60 + 60 + 100, "the documented wait and no more"


def test_a_node_that_comes_back_in_time_loses_nothing() -> None:
    cluster = Cluster()
    for name in TRAINING:
        cluster.step_world(name)
    cluster.step_world("darken", 1)
    for _ in range(10):
        cluster.step_world("operate")
        cluster.step_world("controllers")
    cluster.step_world("lighten")
    over = cluster.settle()
    assert (over.phase, over.restarts, over.attempt) == (Phase.SUCCEEDED, "0/0", 1)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("returns", [False, True])
def test_a_life_in_which_pods_are_left_to_the_cluster(rank: int, returns: bool) -> None:
    cluster = Cluster(settings=PATIENT)
    for name in [*TRAINING, "commit"]:
        cluster.step_world(name)
    cluster.step_world("darken", rank)
    for _ in range(200):
        for name in ("operate", "controllers", "kubelets", "operate"):
            cluster.step_world(name)
    assert (cluster.dj.status.phase, cluster.dj.status.attempt) == (Phase.RECOVERING, 1)
    if returns:
        cluster.step_world("lighten")
    else:
        for dark in [p for p in cluster.pods.values() if p.node in cluster.dark]:
            cluster.remove(dark)  # as the cluster does for a node that is deleted or tainted out-of-service
    over = cluster.settle()
    assert (over.phase, over.restarts, over.attempts[0].reason) == (Phase.SUCCEEDED, "0/1", Reason.NODE_LOST)


@settings(max_examples=100, deadline=None)
@given(st.sets(st.integers(0, 1), min_size=1), st.integers(0, len(TRAINING)), st.booleans())
def test_nodes_may_be_lost_at_any_moment_and_together(ranks: set[int], moment: int, waits: bool) -> None:
    cluster = Cluster()
    for name in TRAINING[:moment]:
        cluster.step_world(name)
    for rank in ranks:
        cluster.step_world("darken", rank)
    if waits:
        cluster.step_world("wait")
    assert cluster.settle().phase == Phase.SUCCEEDED
    assert len(cluster.dark) <= NODES
