"""spec.nodes of an elastic job changes while it runs: it takes the new size, at no charge and with the same shards."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_api.constants import Phase
from distill_api.job import DistillJob
from distill_api.pod.run import RunConfig
from distill_api.reasons import Reason
from distill_api.status import DistillJobStatus
from distill_operator import builders
from distill_operator.plan.plan import make_plan
from distill_operator.policies.capacity import elasticity
from distill_operator.types.actions import Create, Delete
from distill_operator.types.observed import JobFacts, Placeholders
from tests.support.operator.cluster import CRASHES, FAULTS, OUTAGES, ROOM, Cluster
from tests.support.operator.samples import SETTINGS, answer, at, attempt, child, job, observed, pod, status
from tests.support.operator.world import NODES, VOLUMES

ELASTIC = {"minNodes": 1, "shrinkAfterSeconds": 300, "growAfterSeconds": 600}
RUNNING = {"running_at": at(0), "stepped_at": at(0), "step": 5, "resumed_from_step": 0}


def scaled(nodes: int, had: int, full: int | None = 4, **fields: Any) -> DistillJob:
    """A job that asks for `nodes`, with an attempt of `had`."""
    story = status(attempt(nodes=had, **{**RUNNING, **fields}), full_nodes=full)
    return job(story, nodes=nodes, elastic=ELASTIC, training={"batch": 24})


def decided(of: DistillJob, now: float = 700, **seen: Any) -> tuple[DistillJobStatus, list[tuple[str, str]]]:
    gang = [pod(rank) for rank in range(of.status.attempts[-1].nodes)]
    plan = make_plan(observed(of, *gang, jobs=(child(),), trainer=answer(6), **seen), at(now), SETTINGS)
    assert plan.status is not None
    made = [("create", a.manifest["metadata"]["name"]) for a in plan.actions if isinstance(a, Create)]
    return plan.status, made + [("delete", a.name) for a in plan.actions if isinstance(a, Delete)]


@pytest.mark.parametrize(
    ("full", "least", "most", "expected"),
    [(4, 1, 3, (3, 2, 1)), (4, 1, 2, (2, 1)), (8, 1, 6, (6, 4, 3, 2, 1)), (8, 3, 4, (4, 3)), (8, 5, 5, (5,))],
)
def test_sizes_follow_from_the_shards_and_from_what_is_asked_for(
    full: int, least: int, most: int, expected: tuple[int, ...]
) -> None:
    assert elasticity.sizes(full, least, most) == expected


def test_a_lower_number_ends_the_attempt_at_once_and_at_no_charge() -> None:
    after, actions = decided(scaled(2, had=4))
    ended = after.attempts[-1]
    assert (ended.reason, ended.next_nodes) == (Reason.SCALED_DOWN, 2)
    assert "spec.nodes is 2 and the attempt has 4" in (ended.message or "")
    assert actions == [("delete", "tiny-a1")]
    gone = scaled(2, had=4).model_copy(update={"status": after})
    plan = make_plan(observed(gone), at(701), SETTINGS)
    assert plan.status is not None
    assert (plan.status.attempts[-1].nodes, plan.status.restarts, plan.status.full_nodes) == (2, "0/0", 4)
    (made,) = [a.manifest for a in plan.actions if isinstance(a, Create) and a.manifest["kind"] == "Job"]
    assert made["spec"]["completions"] == 2


def test_an_attempt_that_waits_for_nodes_takes_the_lower_number_too() -> None:
    waiting = scaled(2, had=4, running_at=None, stepped_at=None, step=None, admitted_at=None)
    held = observed(waiting, jobs=(child(suspended=True),))
    plan = make_plan(held, at(5), SETTINGS)
    assert plan.status is not None
    assert plan.status.attempts[-1].reason == Reason.SCALED_DOWN


def test_a_job_that_is_elastic_no_more_still_takes_the_lower_number() -> None:
    of = scaled(2, had=4)
    rigid = of.model_copy(update={"spec": of.spec.model_copy(update={"elastic": None})})
    assert decided(rigid)[0].attempts[-1].reason == Reason.SCALED_DOWN


@pytest.mark.parametrize("nodes", [2, 4])
def test_the_same_or_a_higher_number_ends_no_attempt(nodes: int) -> None:
    assert decided(scaled(nodes, had=2))[0].attempts[-1].reason is None


def test_a_higher_number_is_asked_for_as_after_a_shortage() -> None:
    assert decided(scaled(4, had=2), now=599)[1] == []
    after, actions = decided(scaled(4, had=2), now=600)
    assert actions == [("create", "tiny-grow")]
    degraded = next(c for c in after.conditions if c.type == "Degraded")
    assert (degraded.status, degraded.message[:9]) == ("True", "nodes 2/4")


def holders(count: int, running: int) -> Placeholders:
    facts = JobFacts("tiny-grow", "job-grow", 0, owned=True, created_at=at(600), nodes=count)
    pending = {"phase": "Pending", "scheduled_at": None}
    return Placeholders(facts, tuple(pod(n, number=0, **({} if n < running else pending)) for n in range(count)))


@pytest.mark.parametrize(("nodes", "count"), [(4, 1), (3, 2)])
def test_placeholders_are_as_many_as_the_new_number_lacks(nodes: int, count: int) -> None:
    before = scaled(nodes, had=2, grow_at=at(9999), grow_tries=1)
    after, actions = decided(before, placeholders=holders(count, running=0))
    assert actions == [("delete", "tiny-grow")]
    newest = after.attempts[-1]
    assert (newest.grow_at, newest.grow_tries) == (at(700), 1), "asked again at once, and no try in vain"
    again = before.model_copy(update={"status": after})
    assert decided(again, now=701)[1] == [("create", "tiny-grow")]


def test_a_number_between_two_sizes_is_grown_to_because_it_is_asked_for() -> None:
    after, _ = decided(scaled(3, had=2, grow_at=at(600)), placeholders=holders(1, running=1))
    assert (after.attempts[-1].reason, after.attempts[-1].next_nodes) == (Reason.GROWING, 3)


def test_a_job_without_room_shrinks_to_sizes_of_its_shards() -> None:
    assert elasticity.smaller(status(full_nodes=8), scaled(6, had=6).spec, 6, placed=5) == 4
    assert elasticity.larger(status(full_nodes=8), scaled(6, had=3).spec, 3, more=2) == 4


def test_the_first_attempt_stores_the_full_size_and_later_ones_keep_it() -> None:
    first = make_plan(observed(job(nodes=4, elastic=ELASTIC)), at(0), SETTINGS).status
    assert first is not None
    assert first.full_nodes == 4
    lowered = job(first, nodes=2, elastic=ELASTIC)
    second = make_plan(observed(lowered, jobs=(child(),)), at(5), SETTINGS).status
    assert second is not None
    assert second.full_nodes == 4


def test_an_older_status_tells_the_full_size_by_its_attempts() -> None:
    assert decided(scaled(2, had=2, full=None))[0].full_nodes == 2
    assert decided(scaled(2, had=4, full=None))[0].full_nodes == 4


@pytest.mark.parametrize(("full", "shards"), [(4, 4), (None, 2)])
def test_the_trainer_cuts_the_batch_for_the_full_size(full: int | None, shards: int) -> None:
    made = builders.build_job(scaled(2, had=2, full=full), "team", 2, 2, SETTINGS)
    (container,) = made["spec"]["template"]["spec"]["containers"]
    run = RunConfig.model_validate_json(container["env"][0]["value"])
    assert (run.nodes, run.world_size, run.spec.world_size) == (2, 2, shards)


def test_the_scale_subresource_counts_running_pods() -> None:
    assert decided(scaled(4, had=4))[0].replicas == 4
    ended, _ = decided(scaled(2, had=4))
    assert (ended.phase, ended.replicas) == (Phase.RECOVERING, 0)


# Lives in the simulated cluster.


def elastic_cluster(room: int = NODES) -> Cluster:
    patient = {"stallTimeoutSeconds": 100000}
    dj = job(nodes=4, volumes=VOLUMES, elastic=ELASTIC, recovery=patient, training={"batch": 12})
    return Cluster(dj=dj, room=room)


def test_a_life_that_is_scaled_down_and_up() -> None:
    cluster = elastic_cluster()
    for nodes in (4, 2, 3):
        cluster.step_world("scale", nodes - 1)
        cluster.pass_time(100)
        cluster.step_world("train")
        cluster.pass_time(700)
        assert (cluster.dj.status.attempts[-1].nodes, len(cluster.gang())) == (nodes, nodes)
        assert cluster.dj.status.full_nodes == 4
    over = cluster.settle()
    assert (over.phase, over.restarts) == (Phase.SUCCEEDED, "0/0")
    assert [(a.nodes, a.reason, a.lost_steps or 0) for a in over.attempts] == [
        (4, Reason.SCALED_DOWN, 0),
        (2, Reason.GROWING, 0),
        (3, Reason.COMPLETED, 0),
    ]


STEPS = (
    "operate", "controllers", "kubelets", "train", "commit", "wait", "scale", "scale", "scale", "suspend", "resume",
    *FAULTS, *OUTAGES, *CRASHES, *ROOM,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 3)), max_size=80), st.integers(1, NODES))
def test_whatever_happens_a_job_that_is_scaled_ends(story: list[tuple[str, int]], room: int) -> None:
    cluster = elastic_cluster(room)
    for name, rank in story:
        cluster.step_world(name, rank)
        full = cluster.dj.status.full_nodes
        assert full is None or full >= cluster.dj.spec.nodes, "the run would have other shards"
    over = cluster.settle()
    assert over.phase in (Phase.SUCCEEDED, Phase.FAILED)
    assert over.attempts[-1].nodes <= cluster.dj.spec.nodes
    assert not cluster.holders or cluster.jobs["tiny-grow"].deleting
