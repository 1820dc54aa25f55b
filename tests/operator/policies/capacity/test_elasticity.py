"""A job that may run with fewer nodes: it shrinks to what there is, grows when there is more, and never to and fro."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_api.constants import ConditionType, Outcome, Phase
from distill_api.job import DistillJob
from distill_api.reasons import Reason
from distill_api.status import Attempt, DistillJobStatus
from distill_operator import builders
from distill_operator.kube import objects
from distill_operator.plan.plan import make_plan
from distill_operator.policies.capacity import elasticity
from distill_operator.status import conditions
from distill_operator.types.actions import Action, Create
from distill_operator.types.observed import JobFacts, Placeholders
from tests.support.operator.cluster import CRASHES, FAULTS, OUTAGES, ROOM, Cluster
from tests.support.operator.samples import (
    NOW,
    SETTINGS,
    UID,
    answer,
    at,
    attempt,
    child,
    closed,
    job,
    observed,
    pod,
    status,
)
from tests.support.operator.world import NODES, VOLUMES

ELASTIC = {"minNodes": 1, "shrinkAfterSeconds": 300, "growAfterSeconds": 600}


@pytest.mark.parametrize(
    ("nodes", "least", "expected"),
    [
        (4, 1, (4, 2, 1)),
        (4, 2, (4, 2)),
        (4, 3, (4, 3)),
        (8, 1, (8, 4, 3, 2, 1)),
        (8, 5, (8, 5)),
        (5, 1, (5, 3, 2, 1)),
        (1, 1, (1,)),
        (4, 4, (4,)),
    ],
)
def test_sizes_that_are_worth_having(nodes: int, least: int, expected: tuple[int, ...]) -> None:
    assert elasticity.sizes(nodes, least) == expected


@given(st.integers(1, 64), st.data())
def test_every_smaller_size_makes_steps_longer_and_none_is_below_the_least(nodes: int, data: st.DataObject) -> None:
    least = data.draw(st.integers(1, nodes))
    found = elasticity.sizes(nodes, least)
    assert (found[0], found[-1]) == (nodes, least)
    busiest = [-(-nodes // size) for size in found[:-1]]
    assert busiest == sorted(set(busiest))


def elastic(of: DistillJobStatus | None = None, nodes: int = 4, **fields: int) -> DistillJob:
    return job(of, nodes=nodes, elastic={**ELASTIC, **fields})


@pytest.mark.parametrize(
    ("placed", "least", "expected"), [(3, 1, 2), (2, 1, 2), (1, 1, 1), (0, 1, 1), (1, 2, 2), (3, 3, 3), (3, 4, None)]
)
def test_a_gang_shrinks_to_what_fits(placed: int, least: int, expected: int | None) -> None:
    assert elasticity.smaller(status(), elastic(minNodes=least).spec, 4, placed) == expected


@pytest.mark.parametrize(("nodes", "more", "expected"), [(2, 2, 4), (2, 1, None), (1, 1, 2), (1, 2, 2), (1, 3, 4)])
def test_a_gang_grows_only_to_what_makes_it_faster(nodes: int, more: int, expected: int | None) -> None:
    assert elasticity.larger(status(), elastic().spec, nodes, more) == expected


def sized(number: int, nodes: int, reason: Reason = Reason.PREEMPTED, **fields: Any) -> Attempt:
    return closed(number, reason, nodes=nodes, **fields)


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ([], 4),
        ([sized(1, 4)], 4),
        ([sized(1, 4, Reason.SCHEDULING_TIMEOUT, next_nodes=2)], 2),
        ([sized(1, 2)], 2),
        ([sized(1, 2, Reason.GROWING, next_nodes=4)], 4),
        ([sized(1, 2, Reason.SUSPENDED_BY_USER)], 4),
    ],
)
def test_the_size_of_the_next_attempt(before: list[Attempt], expected: int) -> None:
    assert elasticity.next_size(status(*before), elastic().spec) == expected
    assert elasticity.next_size(status(*before), job(nodes=4).spec) == 4, "a job that is not elastic has one size"


def test_a_raised_minimum_counts_from_the_next_attempt_on() -> None:
    assert elasticity.next_size(status(sized(1, 1)), elastic(minNodes=2).spec) == 2


GREW, FELL = Reason.GROWING, Reason.SCHEDULING_TIMEOUT


@pytest.mark.parametrize(
    ("before", "seconds"),
    [
        ([sized(1, 4)], 600),
        ([sized(1, 2, GREW), sized(2, 4, FELL)], 1200),
        ([sized(1, 2, GREW), sized(2, 4, FELL), sized(3, 2, GREW), sized(4, 4, FELL)], 2400),
        ([sized(1, 2, GREW), sized(2, 4, FELL), sized(3, 2), sized(4, 2)], 1200),
        ([sized(1, 2, GREW), sized(2, 4, running_at=NOW)], 600),
        ([sized(1, 2, GREW), sized(2, 2, Reason.SUSPENDED_BY_USER)], 600),
        ([sized(number, 2, GREW) for number in range(1, 20)], 600 * 32),
    ],
)
def test_each_growth_in_vain_doubles_the_wait(before: list[Attempt], seconds: float) -> None:
    story = status(*before, attempt(len(before) + 1, nodes=2))
    spec = elastic(story).spec
    assert spec.elastic is not None
    assert elasticity.grow_delay(story, spec.elastic).total_seconds() == seconds


PENDING = {"phase": "Pending", "scheduled_at": None, "unschedulable": "0/3 nodes are available"}


def test_an_attempt_without_room_is_withdrawn_and_the_next_one_is_smaller() -> None:
    starting = elastic(status(attempt(nodes=4), phase=Phase.STARTING))
    pods = (pod(0), pod(1), pod(2), pod(3, **PENDING))
    early = make_plan(observed(starting, *pods, jobs=(child(),)), at(299), SETTINGS).status
    assert early is None or early.attempts[0].reason is None
    taken = make_plan(observed(starting, *pods, jobs=(child(),)), at(300), SETTINGS)
    assert taken.status is not None
    ended = taken.status.attempts[0]
    assert (ended.reason, ended.next_nodes) == (Reason.SCHEDULING_TIMEOUT, 2)
    assert "0/3 nodes are available; the next attempt has 2 nodes" in (ended.message or "")
    gone = starting.model_copy(update={"status": taken.status})
    second = make_plan(observed(gone), at(301), SETTINGS)
    assert second.status is not None
    assert (second.status.attempt, second.status.attempts[1].nodes, second.status.restarts) == (2, 2, "0/0")
    (made,) = [a.manifest for a in second.actions if isinstance(a, Create) and a.manifest["kind"] == "Job"]
    assert made["spec"]["completions"] == made["spec"]["parallelism"] == 2
    degraded = conditions.find(second.status.conditions, ConditionType.DEGRADED)
    assert degraded is not None
    assert (degraded.status, degraded.reason) == ("True", Reason.FEWER_NODES)
    assert degraded.message.startswith("nodes 2/4")
    assert second.status.nodes == "0/4"


def test_at_the_least_size_the_scheduling_timeout_applies() -> None:
    starting = elastic(status(attempt(nodes=2), phase=Phase.STARTING), minNodes=2)
    seen = observed(starting, pod(0), pod(1, **PENDING), jobs=(child(),))
    waiting = make_plan(seen, at(899), SETTINGS).status
    assert waiting is None or waiting.attempts[0].reason is None
    late = make_plan(seen, at(1200), SETTINGS).status
    assert late is not None
    assert (late.attempts[0].reason, late.attempts[0].next_nodes) == (Reason.SCHEDULING_TIMEOUT, None)


def test_a_pod_that_is_gone_is_no_lack_of_room() -> None:
    """The operator was away, and the Job controller has not yet said that the pod is gone."""
    running = elastic(status(attempt(nodes=2, scheduled_at=at(1), running_at=at(5), stepped_at=at(5), step=5)))
    plan = make_plan(observed(running, pod(0), jobs=(child(),)), at(500), SETTINGS)
    assert plan.status is None or plan.status.attempts[0].reason is None


# Growth.

SMALL = attempt(2, nodes=2, running_at=at(0), stepped_at=at(0), step=5, resumed_from_step=0, grow_at=at(600))
GANG = (pod(0, number=2), pod(1, number=2))


def holders(running: int, pending: int = 0, since: float = 600, **fields: Any) -> Placeholders:
    asked = running + pending
    objects = JobFacts("tiny-grow", "job-grow", 0, owned=True, created_at=at(600), nodes=asked, **fields)
    one = replace(pod(0, number=0), name="tiny-grow-x", scheduled_at=at(since))
    return Placeholders(objects, (one,) * running + (replace(one, phase="Pending", scheduled_at=None),) * pending)


def decided(
    now: float, held: Placeholders | None, small: Attempt = SMALL, nodes: int = 4
) -> tuple[Attempt, list[Action]]:
    story = elastic(status(closed(1), small), nodes=nodes)
    seen = observed(story, *GANG, jobs=(child(2),), trainer=answer(6, number=2), placeholders=held)
    plan = make_plan(seen, at(now), SETTINGS)
    assert plan.status is not None
    return plan.status.attempts[-1], list(plan.actions)


def names(actions: list[Action]) -> list[tuple[str, str]]:
    return [
        ("create", a.manifest["metadata"]["name"]) if isinstance(a, Create) else ("delete", a.name) for a in actions
    ]


def test_a_smaller_attempt_asks_for_the_missing_nodes_while_it_trains() -> None:
    assert names(decided(599, None)[1]) == []
    after, actions = decided(600, None)
    assert names(actions) == [("create", "tiny-grow")]
    assert isinstance(actions[0], Create)
    assert actions[0].optional, "a quota that refuses placeholders is no reason to end a training"
    assert actions[0].manifest["spec"]["parallelism"] == 2
    assert (after.reason, after.grow_at) == (None, at(1200)), "one that is refused is tried again later"


def test_placeholders_that_find_no_room_may_wait_for_ever() -> None:
    after, actions = decided(99999, holders(0, 2))
    assert (after.reason, actions) == (None, [])


def test_when_all_placeholders_run_the_attempt_makes_way() -> None:
    after, actions = decided(700, holders(2))
    assert (after.reason, after.next_nodes) == (Reason.GROWING, 4)
    assert names(actions) == [("delete", "tiny-a2")], "the nodes stay held until the larger attempt begins"


def test_growing_is_news_but_no_warning() -> None:
    story = elastic(status(closed(1), SMALL))
    seen = observed(story, *GANG, jobs=(child(2),), trainer=answer(6, number=2), placeholders=holders(2))
    (event,) = [e for e in make_plan(seen, at(700), SETTINGS).events if e.reason == Reason.GROWING]
    assert event.reason.facts.event_type == "Normal"
    assert "room for 4 nodes instead of 2" in event.message


def test_placeholders_are_not_held_for_longer_than_an_attempt_would_wait() -> None:
    assert decided(899, holders(1, 1))[1] == []
    after, actions = decided(900, holders(1, 1))
    assert after.reason is None, "3 of 4 nodes make no step faster than 2 do"
    assert names(actions) == [("delete", "tiny-grow")]
    assert (after.grow_tries, after.grow_at) == (1, at(2100)), "idle nodes are not reserved again soon: 600 s, doubled"


def test_a_part_of_the_nodes_is_taken_when_it_makes_steps_faster() -> None:
    assert decided(899, holders(2, 4), nodes=8)[0].reason is None
    after, _ = decided(900, holders(2, 4), nodes=8)
    assert (after.reason, after.next_nodes) == (Reason.GROWING, 4)


def test_placeholders_that_failed_are_taken_back() -> None:
    _, actions = decided(700, holders(1, 1, failing_at=at(650)))
    assert names(actions) == [("delete", "tiny-grow")]


@pytest.mark.parametrize(
    "small", [attempt(2, nodes=4, running_at=at(0)), attempt(2, nodes=2, reason=Reason.PREEMPTED, message="why")]
)
def test_placeholders_go_when_they_are_not_needed(small: Attempt) -> None:
    assert ("delete", "tiny-grow") in names(decided(700, holders(2), small)[1])


def test_the_larger_attempt_takes_the_placeholders_nodes_and_loses_nothing() -> None:
    grown = sized(2, 2, Reason.GROWING, next_nodes=4, step=9, committed_step=9, outcome=Outcome.WITHDRAWN)
    story = elastic(status(closed(1), grown, phase=Phase.RECOVERING))
    plan = make_plan(observed(story, placeholders=holders(2)), at(700), SETTINGS)
    assert plan.status is not None
    assert (plan.status.attempts[-1].nodes, plan.status.restarts) == (4, "0/0")
    first = names(list(plan.actions))
    assert first[0] == ("delete", "tiny-grow")
    assert ("create", "tiny-a3") in first


def test_a_job_that_is_not_elastic_never_asks() -> None:
    story = job(status(closed(1), SMALL), nodes=4)
    plan = make_plan(observed(story, *GANG, jobs=(child(2),), trainer=answer(6, number=2)), at(9999), SETTINGS)
    assert not [a for a in plan.actions if isinstance(a, Create)]


def test_a_placeholder_requests_what_a_training_pod_does_and_does_nothing() -> None:
    scheduling = {"priorityClassName": "low", "nodeSelector": {"gpu": "a"}, "tolerations": [{"operator": "Exists"}]}
    template = {"spec": {"containers": [{"name": "trainer", "resources": {"requests": {"cpu": "4"}}}]}}
    of = job(nodes=4, elastic=ELASTIC, scheduling=scheduling, template=template)
    made = builders.build_placeholders(observed(of), 2, SETTINGS)
    gang = builders.build_job(of, "team", 1, 2, SETTINGS)
    ours, theirs = made["spec"]["template"]["spec"], gang["spec"]["template"]["spec"]
    for field in ("priorityClassName", "nodeSelector", "tolerations", "volumes", "securityContext"):
        assert ours[field] == theirs[field]
    (idle,), (trainer,) = ours["containers"], theirs["containers"]
    assert idle["resources"] == trainer["resources"] == {
        "limits": {"nvidia.com/gpu": "1"}, "requests": {"cpu": "4", "memory": "3747Mi"}
    }  # fmt: skip
    assert (idle["image"], idle["command"][0]) == ("trainer:1", "python")
    assert "env" not in idle
    (term,) = ours["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["labelSelector"]["matchLabels"] == {"distilljob.dev/job": "tiny"}, "on no node that the job has"
    labels = made["spec"]["template"]["metadata"]["labels"]
    assert labels["app.kubernetes.io/component"] == "placeholder"
    assert "distilljob.dev/attempt" not in labels
    assert ours["terminationGracePeriodSeconds"] == 1
    assert made["metadata"]["ownerReferences"][0]["uid"] == UID


def test_a_placeholder_runs_nothing_of_the_users_and_preempts_nobody() -> None:
    extras = [
        {"name": "trainer", "lifecycle": {}, "envFrom": []},
        {"name": "sidecar", "image": "logs:1", "resources": {"requests": {"cpu": "1"}}},
    ]
    template = {"spec": {"containers": extras, "initContainers": [{"name": "first", "image": "x"}]}}
    of = job(nodes=4, elastic=ELASTIC, scheduling={"priorityClassName": "urgent"}, template=template)
    low = replace(SETTINGS, placeholder_priority_class="lowest")
    spec = builders.build_placeholders(observed(of), 2, low)["spec"]["template"]["spec"]
    assert spec["priorityClassName"] == "lowest"
    for container in spec["containers"]:
        assert container["image"] == "trainer:1"
        assert not {"lifecycle", "envFrom", "readinessProbe", "env", "volumeMounts"} & container.keys()
    assert spec["containers"][1]["resources"] == {"requests": {"cpu": "1"}}, "the training pods will need it"
    assert "initContainers" not in spec


def test_placeholders_are_found_among_the_children() -> None:
    made = builders.build_placeholders(observed(elastic()), 2, SETTINGS)
    made["metadata"] |= {"uid": "job-grow", "creationTimestamp": "2026-11-23T12:00:00Z"}
    raw = {
        "metadata": {
            **made["spec"]["template"]["metadata"],
            "name": "tiny-grow-x",
            "uid": "p",
            "creationTimestamp": "2026-11-23T12:00:00Z",
            "ownerReferences": [{"uid": "job-grow", "controller": True}],
        },
        "status": {"phase": "Running"},
    }
    held = objects.placeholders([made], [raw], UID)
    assert held is not None
    assert (held.job.name, [p.name for p in held.pods]) == ("tiny-grow", ["tiny-grow-x"])
    assert objects.placeholders([made], [raw], "another") is None
    assert objects.is_placeholder(raw)
    assert not objects.is_placeholder(builders.build_job(elastic(), "team", 1, 2, SETTINGS))


# Lives in the simulated cluster.


def small_cluster(room: int) -> Cluster:
    patient = {"stallTimeoutSeconds": 100000}  # the training of these lives makes steps only when it is told to
    return Cluster(dj=job(nodes=4, volumes=VOLUMES, elastic=ELASTIC, recovery=patient), room=room)


def test_a_life_between_two_and_four_nodes() -> None:
    cluster = small_cluster(room=3)
    cluster.pass_time(400)
    cluster.step_world("train")
    cluster.step_world("operate")
    assert [a.nodes for a in cluster.dj.status.attempts] == [4, 2]
    assert cluster.dj.status.phase == Phase.RUNNING
    cluster.pass_time(700)
    assert [p.phase for p in cluster.holders.values()] == ["Running", "Pending"]
    assert cluster.dj.status.attempt == 2, "one node more does not help"
    cluster.room = 4
    cluster.pass_time(100)
    assert cluster.dj.status.attempts[-1].nodes == 4
    assert not cluster.holders
    over = cluster.settle()
    assert (over.phase, over.restarts) == (Phase.SUCCEEDED, "0/0")
    assert [(a.nodes, a.reason) for a in over.attempts] == [
        (4, Reason.SCHEDULING_TIMEOUT),
        (2, Reason.GROWING),
        (4, Reason.COMPLETED),
    ]
    assert over.attempts[2].lost_steps == 0
    assert conditions.find(over.conditions, ConditionType.DEGRADED).status == "False"  # type: ignore[union-attr]


def test_a_job_whose_room_is_taken_again_and_again_does_not_go_to_and_fro() -> None:
    """Somebody takes the nodes each time between asking and growing; the waits double."""
    cluster = small_cluster(room=2)
    grown = []
    for _ in range(2000):
        for name in ("operate", "controllers", "kubelets", "operate"):
            cluster.step_world(name)
        newest = cluster.dj.status.attempts[-1]
        if cluster.gang():
            cluster.step = cluster.committed + 1
        cluster.room = 4 if newest.nodes == 2 and newest.reason is None else 2
        if newest.reason == Reason.GROWING and newest.number not in grown:
            grown.append(newest.number)
        cluster.seconds += 10
        if cluster.seconds > 20000:
            break
    assert 2 <= len(grown) <= 6
    trained = sum((a.spent.productive_seconds if a.spent else 0) for a in cluster.dj.status.attempts if a.nodes == 2)
    assert trained > 0.8 * cluster.seconds


STEPS = (
    "operate", "controllers", "kubelets", "train", "commit", "wait", "wait", "suspend", "resume",
    *FAULTS, *OUTAGES, *CRASHES, *ROOM, *ROOM,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 3)), max_size=80), st.integers(1, NODES))
def test_whatever_happens_an_elastic_job_ends(story: list[tuple[str, int]], room: int) -> None:
    cluster = small_cluster(room)
    for name, rank in story:
        cluster.step_world(name, rank)
    over = cluster.settle()
    assert over.phase in (Phase.SUCCEEDED, Phase.FAILED)
    assert all(a.nodes in (4, 2, 1) for a in over.attempts)
    assert not cluster.holders or cluster.jobs["tiny-grow"].deleting
