"""What the operator's metrics show of statuses: gauges of the stored one, counters of what changed between two."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_api.constants import Outcome, Phase
from distill_api.reasons import Reason
from distill_api.status import DistillJobStatus, Goodput, Spent
from distill_operator.controller.telemetry.job_time import growth
from distill_operator.controller.telemetry.metrics import Metrics
from distill_operator.status.goodput import KINDS
from tests.support.operator.samples import at, attempt, closed, job, status

KEY = ("team", "tiny")
LABELS = {"namespace": "team", "distilljob": "tiny"}
RAN = {"scheduled_at": at(10), "running_at": at(20)}


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"distill_operator_{name}", labels)


def job_time(metrics: Metrics) -> dict[str, float | None]:
    names = (kind.removesuffix("_seconds") for kind in KINDS)
    return {kind: value(metrics, "job_time_seconds_total", **LABELS, kind=kind) for kind in names}


def told(**seconds: float) -> DistillJobStatus:
    """A status with this goodput and one attempt."""
    spent = Spent(**{f"{kind}_seconds": value for kind, value in seconds.items()})
    goodput = Goodput(**spent.model_dump(), ratio=0.5, accounted_until=at(99))
    return status(attempt(**RAN), goodput=goodput)


def test_a_job_is_shown_until_it_is_forgotten() -> None:
    metrics, now = Metrics(), told(productive=50, restart=50)
    metrics.state(KEY, job(now, accelerators={"perNode": 4}))
    metrics.transition(KEY, DistillJobStatus(), now)
    assert value(metrics, "goodput_ratio", **LABELS) == 0.5
    assert value(metrics, "job_phase", **LABELS, phase="Running") == 1
    assert value(metrics, "job_accelerators", **LABELS, resource="nvidia.com/gpu") == 8
    metrics.forget(KEY)
    left = [s for family in metrics.registry.collect() for s in family.samples if "distilljob" in s.labels]
    assert left == []


def test_a_job_is_in_one_phase_and_holds_accelerators_while_it_has_nodes() -> None:
    metrics = Metrics()
    for phase, of, held in [
        (Phase.STARTING, attempt(), 0),
        (Phase.RUNNING, attempt(**RAN), 4),
        (Phase.RECOVERING, closed(**RAN), 0),
    ]:
        metrics.state(KEY, job(status(of, phase=phase), accelerators={"perNode": 2}))
        shown = {p for p in Phase if value(metrics, "job_phase", **LABELS, phase=p) is not None}
        assert shown == {phase}
        assert value(metrics, "job_accelerators", **LABELS, resource="nvidia.com/gpu") == held


@pytest.mark.parametrize(("reason", "count"), [(Reason.PREEMPTED, 1), (Reason.SUSPENDED_BY_USER, 0)])
def test_the_time_of_a_restart_leaves_out_suspensions(reason: Reason, count: int) -> None:
    metrics = Metrics()
    before, after = (status(closed(1, reason), attempt(2, running_at=at_)) for at_ in (None, at(9)))
    metrics.transition(KEY, before, after)
    assert value(metrics, "restart_seconds_count") == count


def test_counters_of_a_job_start_at_zero_so_that_the_first_increase_shows() -> None:
    metrics = Metrics()
    metrics.state(KEY, job(told(productive=1)))
    assert value(metrics, "restarts_total", **LABELS, outcome="Disrupted", reason="Preempted") == 0
    assert value(metrics, "restarts_total", **LABELS, outcome="Failed", reason="TrainerError") == 0
    assert value(metrics, "lost_steps_total", **LABELS) == 0
    assert set(job_time(metrics).values()) == {0}


def test_a_restart_is_counted_by_outcome_and_reason() -> None:
    metrics = Metrics()
    over = closed(1, Reason.PREEMPTED, outcome=Outcome.DISRUPTED)
    metrics.transition(KEY, status(attempt()), status(over))
    assert value(metrics, "restarts_total", **LABELS, outcome="Disrupted", reason="Preempted") == 1


def test_the_wait_for_nodes_is_counted_once_for_each_attempt() -> None:
    metrics, waiting = Metrics(), status(attempt(started_at=at(2)))
    placed = status(attempt(started_at=at(2), scheduled_at=at(10)))
    for old, new in [(waiting, placed), (placed, placed)]:
        metrics.transition(KEY, old, new)
    assert value(metrics, "queue_wait_seconds_count") == 1
    assert value(metrics, "queue_wait_seconds_sum") == 8


def test_time_that_becomes_lost_work_is_counted_with_the_next_seconds() -> None:
    metrics, story = Metrics(), [
        told(productive=100, restart=10),
        told(productive=70, restart=10, lost_work=30),  # the attempt is over
        told(productive=70, restart=20, lost_work=30),
        told(productive=100, restart=20, lost_work=30),
    ]  # fmt: skip
    metrics.state(KEY, job(story[0]))
    before, seen = DistillJobStatus(), []
    for now in story:
        metrics.transition(KEY, before, now)
        before = now
        seen.append(job_time(metrics))
    assert seen[1] == seen[0]
    assert sum(v or 0 for v in seen[2].values()) == pytest.approx(120)
    expected = {"productive": 100, "restart": 20, "lost_work": 30, "checkpoint_stall": 0, "validation": 0}
    assert seen[3] == pytest.approx({**expected, "waiting_for_capacity": 0})


def test_an_operator_that_starts_counts_only_what_is_new() -> None:
    metrics = Metrics()
    metrics.transition(KEY, told(productive=1000), told(productive=1010))
    assert job_time(metrics)["productive"] == 10


@given(st.dictionaries(st.sampled_from(KINDS), st.floats(-1e4, 1e4)))
def test_counters_grow_by_the_new_seconds_and_never_fall(short: dict[str, float]) -> None:
    counted = growth(short)
    assert all(seconds >= 0 for seconds in counted.values())
    assert sum(counted.values()) == pytest.approx(max(0.0, sum(short.values())), abs=1e-6)


def bounds(metrics: Metrics, name: str) -> list[float]:
    """Upper bounds of a histogram's buckets, in order."""
    families = [family for family in metrics.registry.collect() if family.name == f"distill_operator_{name}"]
    return sorted(float(s.labels["le"]) for family in families for s in family.samples if "le" in s.labels)


@pytest.mark.parametrize("name", ["restart_seconds", "queue_wait_seconds", "time_to_first_step_seconds"])
def test_a_quantile_of_minutes_or_hours_is_at_most_twice_too_large(name: str) -> None:
    """Prometheus finds a quantile only within a bucket, and calls everything above the last bound that bound."""
    found = bounds(Metrics(), name)
    assert [after / before for before, after in pairwise(found) if before >= 5 and after / before > 2] == [math.inf]
    assert found[-2] == 86400, "a restart may wait for nodes as long as a first start"
