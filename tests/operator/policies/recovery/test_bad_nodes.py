"""Nodes that the next attempts avoid: who is to blame, for how long, and that no job ever waits for that alone."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_api.constants import ConditionType, Phase
from distill_api.reason_facts import Blame
from distill_api.reasons import Reason
from distill_api.spec.fields import Recovery
from distill_api.status import KEPT_AVOIDED_NODES, Attempt, AvoidedNode, DistillJobStatus
from distill_operator.plan.plan import make_plan
from distill_operator.policies.recovery import bad_nodes
from distill_operator.status import conditions
from distill_operator.status.events import transition_events
from distill_operator.types.actions import Create, Delete, Notice
from distill_operator.types.observed import Placeholders, PodFacts
from tests.support.operator.cluster import FAULTS, Cluster
from tests.support.operator.samples import (
    NOW,
    SETTINGS,
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
)  # fmt: skip
from tests.support.operator.world import VOLUMES

RECOVERY = Recovery()
HOUR = RECOVERY.avoid_node_seconds
DEVICE = report("failed", Reason.ACCELERATOR_FAILED, message="CUDA error: uncorrectable ECC error encountered")
START = [name for _ in range(3) for name in ("operate", "controllers", "operate", "kubelets", "operate", "train")]


def end_of(reason: Reason, number: int = 1, node: str | None = "node1", seconds: float = 10, **fields: Any) -> Attempt:
    return attempt(number, reason=reason, node=node, ended_at=at(seconds), **fields)


def avoided(*ends: Attempt, recovery: Recovery = RECOVERY, pods: tuple[PodFacts, ...] = ()) -> list[AvoidedNode]:
    """What is avoided after these ends, each decided in its turn."""
    so_far = status()
    for end in ends:
        so_far = status(*so_far.attempts, end, avoided_nodes=so_far.avoided_nodes)
        so_far = bad_nodes.after(so_far, pods, recovery)
    return so_far.avoided_nodes


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason.facts.outcome is not None])
def test_the_table_of_reasons_says_what_speaks_against_a_node(reason: Reason) -> None:
    blame = reason.facts.blames_node
    assert bool(avoided(end_of(reason))) == (blame == Blame.ONCE)
    assert bool(avoided(end_of(reason, 1), end_of(reason, 2))) == (blame != Blame.NEVER)


def test_what_a_program_or_a_user_does_speaks_against_no_node() -> None:
    for reason in (Reason.OUT_OF_MEMORY, Reason.TRAINER_ERROR, Reason.PEER_LOST, Reason.PREEMPTED, Reason.POD_DELETED):
        assert reason.facts.blames_node == Blame.NEVER, reason
    at_once = {reason for reason in Reason if reason.facts.blames_node == Blame.ONCE}
    assert at_once == {Reason.ACCELERATOR_FAILED, Reason.POD_CANNOT_START}


def test_an_avoided_node_has_its_reason_its_attempt_and_its_time() -> None:
    assert avoided(end_of(Reason.ACCELERATOR_FAILED, 3)) == [
        AvoidedNode(node="node1", reason=Reason.ACCELERATOR_FAILED, attempt=3, until=at(10 + HOUR))
    ]


@pytest.mark.parametrize(
    ("first", "second", "node", "seconds", "is_avoided"),
    [
        (Reason.PROCESS_KILLED, Reason.PROCESS_KILLED, "node1", HOUR, True),
        (Reason.PROCESS_KILLED, Reason.PROCESS_KILLED, "node1", HOUR + 10, False),
        (Reason.PROCESS_KILLED, Reason.PROCESS_KILLED, "node0", 20, False),
        (Reason.NODE_LOST, Reason.STALLED, "node1", 20, True),
        (Reason.OUT_OF_MEMORY, Reason.PROCESS_KILLED, "node1", 20, False),
        (Reason.PROCESS_KILLED, Reason.OUT_OF_MEMORY, "node1", 20, False),
        (Reason.TRAINER_ERROR, Reason.EVICTED, "node1", 20, False),
        (Reason.EVICTED, Reason.EVICTED, None, 20, False),
    ],
)
def test_one_end_of_a_general_kind_condemns_no_node_and_a_second_does(
    first: Reason, second: Reason, node: str | None, seconds: float, is_avoided: bool
) -> None:
    ends = (end_of(first, 1, "node1" if node else None), end_of(second, 2, node, seconds))
    assert [n.node for n in avoided(*ends)] == (["node1"] if is_avoided else [])


def test_nothing_is_avoided_where_that_is_switched_off() -> None:
    off = Recovery(avoid_node_seconds=0)
    assert avoided(end_of(Reason.ACCELERATOR_FAILED), recovery=off) == []
    stored = status(avoided_nodes=avoided(end_of(Reason.ACCELERATOR_FAILED)))
    assert bad_nodes.current(stored, off, at(11)).avoided_nodes == []


def test_a_node_is_avoided_for_its_time_and_longer_if_blamed_again() -> None:
    stored = status(avoided_nodes=avoided(end_of(Reason.ACCELERATOR_FAILED)))
    assert bad_nodes.current(stored, RECOVERY, at(9 + HOUR)) is stored
    assert bad_nodes.current(stored, RECOVERY, at(10 + HOUR)).avoided_nodes == []
    twice = avoided(end_of(Reason.ACCELERATOR_FAILED), end_of(Reason.ACCELERATOR_FAILED, 2, seconds=99))
    assert [(n.node, n.attempt, n.until) for n in twice] == [("node1", 2, at(99 + HOUR))]


def test_only_so_many_nodes_are_avoided_and_the_oldest_is_dropped() -> None:
    ends = [end_of(Reason.ACCELERATOR_FAILED, n, f"node{n}") for n in range(1, KEPT_AVOIDED_NODES + 3)]
    assert [n.node for n in avoided(*ends)] == [f"node{n}" for n in range(3, KEPT_AVOIDED_NODES + 3)]


def test_a_better_reason_for_the_same_end_decides_anew() -> None:
    first = avoided(end_of(Reason.ACCELERATOR_FAILED))
    lost = status(end_of(Reason.NODE_LOST, node="node0"), avoided_nodes=first)
    assert bad_nodes.after(lost, (), RECOVERY).avoided_nodes == []


# --- a start problem is the node's own if others start


CANNOT = Notice(Reason.POD_CANNOT_START, "why", "node1")


@pytest.mark.parametrize(
    ("others", "node"),
    [
        ([pod(0)], "node1"),
        ([pod(0, **ended(5, 1))], "node1"),
        ([pod(0, phase="Pending")], None),
        ([pod(0, **ended(5, 128, reason="StartError"))], None),
        ([], None),
    ],
)
def test_a_start_problem_is_the_nodes_own_if_other_pods_have_started(others: list[PodFacts], node: str | None) -> None:
    assert bad_nodes.of_end(CANNOT, [*others, pod(1, phase="Pending")]) == node


def test_a_process_that_is_killed_is_about_its_node_whatever_others_do() -> None:
    assert bad_nodes.of_end(Notice(Reason.PROCESS_KILLED, "why", "node1"), [pod(1)]) == "node1"


# --- an attempt that lacks nodes gives some back


def waiting(rank: int, number: int = 2) -> PodFacts:
    return pod(rank, number, phase="Pending", node=None, scheduled_at=None, unschedulable="0/2 nodes are available")


def second(**fields: Any) -> DistillJobStatus:
    first = closed(1, Reason.ACCELERATOR_FAILED, node="node1")
    nodes = [
        AvoidedNode(node=f"node{n}", reason=Reason.ACCELERATOR_FAILED, attempt=1, until=at(HOUR)) for n in (1, 2, 3)
    ]
    now = attempt(2, avoids=["node1", "node2", "node3"], job_uid="job-2", **fields)
    return status(first, now, phase=Phase.STARTING, avoided_nodes=nodes, failures=1)


@pytest.mark.parametrize(("lacking", "left"), [(1, ["node2", "node3"]), (2, ["node3"])])
def test_an_attempt_that_lacks_nodes_gives_back_as_many_the_oldest_first(lacking: int, left: list[str]) -> None:
    gang = [waiting(rank) if rank >= 2 - lacking else pod(rank, 2) for rank in (0, 1)]
    view = observed(job(second()), *gang, jobs=(child(2),))
    early = make_plan(view, at(299), SETTINGS).status
    assert early is None or early.attempts[-1].reason is None
    plan = make_plan(view, at(300), SETTINGS)
    assert plan.status is not None
    newest = plan.status.attempts[-1]
    assert newest.reason == Reason.SCHEDULING_TIMEOUT
    assert [node.node for node in plan.status.avoided_nodes] == left
    given = ", ".join(node for node in ("node1", "node2", "node3") if node not in left)
    assert (newest.message or "").endswith(f"no longer avoided: {given}")
    assert f"next: no longer avoided: {given}" in (newest.decision or [])
    assert any(given in event.message for event in plan.events)


@pytest.mark.parametrize(
    ("seconds", "fields", "gang", "spec"),
    [
        (320, {"avoids": None}, [pod(0, 2), waiting(1)], {}),  # it avoids none
        (320, {}, [pod(0, 2)], {}),  # a pod that does not exist, as for a quota
        (320, {}, [pod(0, 2), pod(1, 2)], {}),
        (320, {}, [pod(0, 2), waiting(1)], {"elastic": {"minNodes": 1, "shrinkAfterSeconds": 600}}),  # it may shrink
    ],
)
def test_an_attempt_keeps_its_nodes_while_that_does_not_help(
    seconds: float, fields: dict[str, Any], gang: list[PodFacts], spec: dict[str, Any]
) -> None:
    stored = second()
    newest = stored.attempts[-1].model_copy(update=fields)
    stored = stored.model_copy(update={"attempts": [stored.attempts[0], newest]})
    plan = make_plan(observed(job(stored, **spec), *gang, jobs=(child(2),)), at(seconds), SETTINGS)
    new = plan.status or stored
    assert new.attempts[-1].reason is None
    assert new.avoided_nodes == stored.avoided_nodes


def test_an_elastic_job_shrinks_and_goes_on_avoiding() -> None:
    spec = {"elastic": {"minNodes": 1, "shrinkAfterSeconds": 60}}
    view = observed(job(second(), **spec), pod(0, 2), waiting(1), jobs=(child(2),))
    plan = make_plan(view, at(61), SETTINGS)
    assert plan.status is not None
    assert plan.status.attempts[-1].next_nodes == 1
    assert len(plan.status.avoided_nodes) == 3


# --- what people are told


def test_conditions_and_events_say_which_node_why_and_until_when() -> None:
    stored = status(attempt(1, running_at=NOW))
    gang = (pod(0), pod(1, **ended(10, 1, DEVICE)))
    plan = make_plan(observed(job(stored), *gang, jobs=(child(failing_at=at(10)),)), at(12), SETTINGS)
    assert plan.status is not None
    told = [event for event in plan.events if event.reason == Reason.NODE_AVOIDED]
    assert len(told) == 1
    for part in ("node1", "2026-11-23T13:00:12Z", "attempt 1", "AcceleratorFailed"):
        assert part in told[0].message
    degraded = conditions.find(plan.status.conditions, ConditionType.DEGRADED)
    assert degraded is not None
    assert "node node1 is avoided until 13:00:12Z (AcceleratorFailed in attempt 1)" in degraded.message
    assert transition_events(plan.status, plan.status, Notice(Reason.TRAINING, "")) == ()


def test_an_attempt_that_waits_says_which_nodes_it_avoids_and_until_when() -> None:
    view = observed(job(second()), pod(0, 2), waiting(1), jobs=(child(2),))
    plan = make_plan(view, at(10), SETTINGS)
    assert plan.status is not None
    running = conditions.find(plan.status.conditions, ConditionType.RUNNING)
    assert running is not None
    assert "its pods must not run on node1, node2, node3" in running.message
    assert "12:05:00Z" in running.message


# --- lives


def live(*steps: str | tuple[str, int], **spec: Any) -> Cluster:
    cluster = Cluster(dj=job(volumes=VOLUMES, **spec))
    for step in steps:
        cluster.step_world(*((step,) if isinstance(step, str) else step))
    return cluster


def until_attempt(cluster: Cluster, number: int) -> None:
    for _ in range(60):
        for name in ("operate", "controllers", "kubelets"):
            cluster.step_world(name)
        pods = [p for p in cluster.pods.values() if p.attempt == number and p.running]
        if cluster.dj.status.attempt == number and pods:
            return
        cluster.seconds += 10
    raise AssertionError(cluster.dj.status)


def test_the_next_attempt_runs_elsewhere_and_the_job_ends_well() -> None:
    cluster = live(*START, "commit", ("ecc", 1))
    bad = next(p.node for p in cluster.pods.values() if p.rank == 1)
    until_attempt(cluster, 2)
    assert bad not in {p.node for p in cluster.pods.values() if p.attempt == 2}
    newest = cluster.dj.status.attempts[-1]
    assert newest.avoids == [bad]
    assert newest.decision == [f"start: avoids {bad} (AcceleratorFailed in attempt 1)"]
    assert cluster.settle().phase == Phase.SUCCEEDED


def test_a_job_that_fills_its_cluster_comes_back_to_the_node() -> None:
    cluster = live(*START, "commit")
    cluster.room = 2
    cluster.step_world("ecc", 1)
    for _ in range(200):
        for name in ("operate", "controllers", "kubelets", "train", "commit"):
            cluster.step_world(name)
        cluster.seconds += 5
        if cluster.dj.status.phase == Phase.SUCCEEDED:
            break
    over = cluster.dj.status
    assert [a.reason for a in over.attempts] == [
        Reason.ACCELERATOR_FAILED, Reason.SCHEDULING_TIMEOUT, Reason.COMPLETED,
    ]  # fmt: skip
    waited = (over.attempts[2].started_at - over.attempts[1].started_at).total_seconds()
    assert bad_nodes.PATIENCE_SECONDS <= waited < bad_nodes.PATIENCE_SECONDS + 60
    assert over.failures == 1


def test_a_job_that_a_queue_kept_says_which_nodes_its_pods_avoid() -> None:
    cluster = live(*START, "commit", ("ecc", 1))
    until_attempt(cluster, 2)
    cluster.step_world("operate")
    stored = cluster.dj.status.model_copy(update={"avoided_nodes": []})  # their time is over, the Job is as it was
    cluster.dj = cluster.dj.model_copy(update={"status": stored})
    cluster.fault("queue_evicts", 0)
    for name in ("operate", "controllers", "kubelets", "controllers", "operate") * 3:
        cluster.step_world(name)
        cluster.seconds += 1
    third = cluster.dj.status.attempts[-1]
    assert (third.number, third.avoids) == (3, ["node1"])
    assert (third.decision or [""])[0].endswith("as the Job that the queue kept does")


def holding(avoids: tuple[str, ...], **fields: Any) -> Placeholders:
    name = {"name": "tiny-grow", "uid": "grow", "attempt": 0, "avoids": avoids, "nodes": 3}
    pods = (replace(pod(0, 0), name="tiny-grow-0", owner_uid="grow", phase="Pending", node=None, scheduled_at=None),)
    return Placeholders(replace(child(), **name), tuple(replace(p, **fields) for p in pods))


@pytest.mark.parametrize(
    ("avoids", "fields", "removed"),
    [
        (("node1",), {}, False),
        (("node1", "node9"), {}, True),  # node9 may be used again by now
        (("node1", "node9"), {"scheduled_at": at(5), "phase": "Running", "node": "node4"}, False),
        ((), {}, False),
    ],
)
def test_placeholders_ask_again_when_a_node_is_no_longer_avoided(
    avoids: tuple[str, ...], fields: dict[str, Any], removed: bool
) -> None:
    small = attempt(2, nodes=1, running_at=NOW, grow_at=at(5), avoids=["node1"])
    nodes = [AvoidedNode(node="node1", reason=Reason.ACCELERATOR_FAILED, attempt=1, until=at(HOUR))]
    stored = status(closed(1, Reason.ACCELERATOR_FAILED, node="node1"), small, avoided_nodes=nodes, failures=1)
    elastic = job(stored, nodes=4, elastic={"minNodes": 1})
    gang = pod(0, 2)
    view = observed(elastic, gang, jobs=(child(2),), placeholders=holding(avoids, **fields))
    plan = make_plan(view, at(20), SETTINGS)
    assert [a.name for a in plan.actions if isinstance(a, Delete)] == (["tiny-grow"] if removed else [])
    if removed:
        assert plan.status is not None
        assert plan.status.attempts[-1].grow_at == at(20)
        again = make_plan(
            observed(elastic.model_copy(update={"status": plan.status}), gang, jobs=(child(2),)), at(21), SETTINGS
        )
        (made,) = [a.manifest for a in again.actions if isinstance(a, Create) and a.optional]
        assert made["metadata"]["annotations"]["distilljob.dev/avoided-nodes"] == "node1"


STEPS = ["operate"] * 4 + ["controllers", "kubelets"] * 3 + ["train", "commit", "wait", "less_room", "more_room"]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([*STEPS, "ecc", "ecc", "kill", *FAULTS]), st.integers(0, 3)), max_size=60))
def test_whatever_fails_no_pod_runs_on_an_avoided_node_and_the_job_ends(story: list[tuple[str, int]]) -> None:
    spec = {"recovery": {"maxFailures": 100, "maxRestartsWithoutProgress": 100}, "elastic": {"minNodes": 1}}
    cluster = Cluster(dj=job(nodes=4, volumes=VOLUMES, **spec))
    for name, rank in story:
        cluster.step_world(name, rank)
        avoids = {a.number: a.avoids or [] for a in cluster.dj.status.attempts}
        assert all(p.node not in avoids.get(p.attempt, []) for p in cluster.pods.values() if p.node)
    assert cluster.settle().phase == Phase.SUCCEEDED
