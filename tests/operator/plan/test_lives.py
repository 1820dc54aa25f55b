"""Whole lives of a job in the simulated cluster: one by one, with every fault at every moment, and at random."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_api.constants import TERMINAL_PHASES, ConditionType, Outcome, Phase
from distill_api.reason_facts import MAX_FAILED_STARTS
from distill_api.reasons import Reason
from distill_operator.status import conditions
from distill_operator.types.actions import Create
from tests.support.operator.cluster import CRASHES, FAULTS, OUTAGES, Cluster

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


def test_pods_that_never_start_free_their_nodes_and_fail_the_job_at_last() -> None:
    cluster = Cluster()
    cluster.spoil()
    held, seen = 0, []
    while cluster.dj.status.phase not in TERMINAL_PHASES:
        for name in ("operate", "controllers", "kubelets", "operate"):
            cluster.step_world(name)
        held += any(pod.live and pod.node for pod in cluster.pods.values()) * 5
        seen.append(cluster.seconds)
        cluster.seconds += 1
        assert cluster.seconds < 10_000
    over = cluster.dj.status
    assert (over.phase, over.restarts, over.failed_starts) == (Phase.FAILED, "0/0", MAX_FAILED_STARTS)
    assert [(a.outcome, a.reason) for a in over.attempts] == [
        (Outcome.WITHDRAWN, Reason.POD_CANNOT_START)
    ] * MAX_FAILED_STARTS
    failed = conditions.find(over.conditions, ConditionType.FAILED)
    assert failed is not None
    assert failed.reason == Reason.POD_CANNOT_START
    assert 'secret "wandb" not found' in failed.message
    starts = [a.started_at for a in over.attempts]
    ends = [a.ended_at for a in over.attempts]
    assert all((end - start).total_seconds() <= 130 for start, end in zip(starts, ends, strict=True) if end)
    breaks = [(start - end).total_seconds() for start, end in zip(starts[1:], ends, strict=False) if end]
    assert breaks == sorted(breaks)
    assert (breaks[0] < 25, breaks[-1] > 250) == (True, True)
    assert held < MAX_FAILED_STARTS * 150


def test_a_secret_that_is_created_after_three_tries_lets_the_job_train() -> None:
    cluster = Cluster()
    cluster.spoil()
    while cluster.dj.status.attempt < 4:
        for name in ("operate", "controllers", "kubelets", "wait"):
            cluster.step_world(name)
    assert cluster.dj.status.failed_starts == 3
    over = cluster.settle()
    assert (over.phase, over.restarts, over.attempt) == (Phase.SUCCEEDED, "0/0", 4)
    assert over.failed_starts == 0


STEPS = (
    "operate", "controllers", "kubelets", "train", "commit", "wait", "suspend", "resume", "spoil", "repair",
    *FAULTS, *OUTAGES, *CRASHES,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 1)), max_size=80))
def test_whatever_happens_the_invariants_hold_and_the_job_ends(story: list[tuple[str, int]]) -> None:
    over = live(story).settle()
    if over.phase == Phase.FAILED:
        failed = conditions.find(over.conditions, ConditionType.FAILED)
        assert failed is not None
        assert failed.reason in (Reason.FAILURE_BUDGET_EXCEEDED, Reason.NO_PROGRESS, Reason.POD_CANNOT_START)


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
