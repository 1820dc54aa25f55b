"""All orders of events up to a bound, instead of some at random: `make model-check` in small."""

import math
from typing import Any

import pytest

from benchmarks.modelcheck import search as searching
from benchmarks.modelcheck.key import key
from benchmarks.modelcheck.mutation.making import mutants
from benchmarks.modelcheck.search import Search, breaks
from benchmarks.modelcheck.steps import Step
from distill_api.constants import Phase
from distill_api.reasons import Reason
from distill_operator.plan import next_attempt, open_attempt
from distill_operator.plan import plan as planning
from distill_operator.policies.recovery import budgets, cleanup
from distill_operator.status import progress
from distill_operator.status.events import transition_events
from distill_operator.types.actions import Delete, Event
from distill_operator.types.observed import JobFacts, Observed
from distill_trainer.checkpoint.store.fence import Fence
from tests.support.operator.hazards import Hazards
from tests.support.operator.samples import at

STATES = 4000
IDENTITY_STATES = 1500
RUNNING: list[Step] = [(name, 0) for name in ("operate", "controllers", "kubelets", "operate", "train", "operate")]


def small_search(states: int, faults: int) -> Search:
    return Search(states, math.inf, faults, settle_every=50, say=str)


def after(*steps: Step) -> Hazards:
    cluster = Hazards()
    for step in steps:
        cluster.step_world(*step)
    return cluster


def test_no_order_of_events_breaks_a_promise() -> None:
    search = small_search(STATES, faults=2)
    violation = search.run()
    assert violation is None, violation.text()
    assert search.states == STATES
    assert search.closed == 0, "every story without a fault was searched to its end"
    assert search.settled >= STATES // 50


def test_how_an_evicted_life_ended_says_nothing_about_the_next_attempt() -> None:
    """Found by a long search: a Job is reserved for attempt 2, and fails by what attempt 1's pods have left."""
    cluster = after(
        *((name, 0) for name in ("operate", "operate", "controllers", "queue_evicts", "kubelets", "unknown_format")),
        *((name, 0) for name in ("operate", "queue_admits", "controllers", "kubelets", "operate", "operate")),
    )
    status = cluster.dj.status
    assert (status.phase, status.attempts[-1].reason) == (Phase.STARTING, None)
    cluster.operate()
    assert cluster.dj.status.attempts[-1].job_uid == cluster.jobs["tiny-a2"].uid


EVICTED_AND_DARK = (
    *((name, 0) for name in ("operate", "operate", "controllers", "queue_evicts", "kubelets")),
    ("darken", 1),
    *((name, 0) for name in ("operate", "controllers", "kubelets", "queue_admits")),
)
"""A queue takes a gang's nodes and gives them back, while a node of the first life does not confirm its pod's end."""


def test_a_dark_node_of_an_evicted_life_does_not_hold_the_job_for_ever() -> None:
    """Found by a long search: the Job is the next attempt's by then, and its finalizer keeps the dark node's pod."""
    cluster = after(*EVICTED_AND_DARK)
    cluster.pass_time(100)
    assert "tiny-a1-1" not in {pod.name for pod in cluster.pods.values()}
    assert cluster.dj.status.attempt == 2


def test_pods_of_an_evicted_life_do_not_end_the_next_attempt() -> None:
    cluster = after(*EVICTED_AND_DARK)
    for _ in range(10):
        if "tiny-a2" not in cluster.jobs:
            cluster.seconds += 20
            for name in ("operate", "controllers", "kubelets"):
                cluster.step_world(name)
    cluster.step_world("operate")
    assert {pod.owner_uid for pod in cluster.noted.values()} - {cluster.jobs["tiny-a2"].uid}, "one is remembered"
    assert cluster.dj.status.attempts[-1].reason is None
    assert [attempt.reason for attempt in cluster.settle().attempts] == [Reason.QUEUE_EVICTED, Reason.COMPLETED]


def test_pods_that_are_not_waited_for_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_attempt, "gang_is_alive", lambda *_: False)
    monkeypatch.setattr(next_attempt, "_leftover_pods", lambda *_, **__: None)
    violation = small_search(STATES, faults=1).run()
    assert violation is not None
    assert len(violation.story) <= 8
    assert breaks(violation.story) == violation.error
    assert all(breaks((*violation.story[:i], *violation.story[i + 1 :])) is None for i in range(len(violation.story)))
    assert violation.text().endswith("cluster.step_world(*step)")


def test_a_failure_that_is_not_charged_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budgets, "charged", lambda status, _: status)
    violation = small_search(STATES, faults=1).run()
    assert violation is not None


def test_passes_that_never_come_to_rest_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "quiet", lambda _: False)
    violation = small_search(STATES, faults=0).run()
    assert violation is not None
    assert "passes in a row" in violation.error


def test_a_copy_of_a_state_goes_its_own_way() -> None:
    first = after(*RUNNING)
    before, second = key(first), first.copy()
    for step in [("preempt", 0), ("operate", 0), ("controllers", 0), ("clock_ahead", 1), ("suspend", 0), ("look", 0)]:
        second.step_world(*step)
    assert key(first) == before != key(second)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("operate",), ("operate", "operate")),
        (("kill",), ("kill", "forget")),
        (("kill",), ("kill", "scale_down")),
        (("preempt",), ("kill",)),
        (("moment",), ("short_wait",)),
        (("clock_ahead",), ("clock_behind",)),
    ],
)
def test_states_count_as_one_if_no_later_decision_differs(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    same = one == ("operate",)
    left, right = (after(*RUNNING, *((name, 0) for name in names)) for names in (one, other))
    assert (key(left) == key(right)) == same


def test_states_in_which_other_nodes_are_avoided_are_told_apart() -> None:
    cluster = after(*RUNNING, ("ecc", 1), ("operate", 0))
    stored = cluster.dj.status
    (avoided,) = stored.avoided_nodes
    newest = stored.attempts[-1]
    for changed in (
        {"avoided_nodes": []},
        {"avoided_nodes": [avoided.model_copy(update={"node": "node5"})]},
        {"avoided_nodes": [avoided.model_copy(update={"until": at(9)})]},
        {"attempts": [newest.model_copy(update={"node": "node5"})]},
        {"attempts": [newest.model_copy(update={"avoids": ["node5"]})]},
    ):
        other = cluster.copy()
        other.dj = cluster.dj.model_copy(update={"status": stored.model_copy(update=changed)})
        assert key(other) != key(cluster), changed


def test_a_status_write_is_refused_if_the_job_changed_after_it_was_read() -> None:
    cluster = after(*RUNNING[:3], ("look", 0), ("suspend", 0))
    stored = cluster.dj
    cluster.step_world("act_on_picture")
    assert cluster.dj is stored
    assert after(*RUNNING[:3], ("look", 0), ("act_on_picture", 0)).dj.status.attempts[0].job_uid is not None


def test_a_request_that_arrives_late_leads_to_no_lasting_gang() -> None:
    cluster = after(
        ("timed_out", 0), ("suspend", 0), ("operate", 0), ("resume", 0), ("operate", 0), ("controllers", 0),
        ("arrive", 0), ("controllers", 0),
    )  # fmt: skip
    assert {pod.attempt for pod in cluster.pods.values() if pod.live} == {1, 2}
    assert cluster.settle().phase == Phase.SUCCEEDED
    assert "tiny-a1" not in cluster.jobs


def named(*names: str) -> tuple[Step, ...]:
    return tuple((name, 0) for name in names)


SECOND_GANG = named("timed_out", "operate", "controllers", "kubelets")
"""A request to create the Job is on its way, and another one has made it."""
SECOND_LIFE = (*RUNNING, *named("queue_evicts", "controllers", "kubelets", "controllers", "queue_admits", "forget"))
"""A queue took the nodes and gave them back, and the operator, which was away, starts."""


@pytest.mark.parametrize("prefix", [SECOND_GANG, SECOND_LIFE])
def test_no_life_of_a_gang_is_taken_for_another_one(prefix: tuple[Step, ...]) -> None:
    search = Search(IDENTITY_STATES, math.inf, 1, settle_every=50, say=str, prefix=prefix)
    violation = search.run()
    assert violation is None, violation.text()
    assert search.states == IDENTITY_STATES


def job_by_number(seen: Observed, attempt: int) -> JobFacts | None:
    return next((job for job in seen.jobs if job.attempt == attempt and job.owned), None)


def earlier_jobs_only(seen: Observed, current: int) -> tuple[Delete, ...]:
    return cleanup.delete_jobs(cleanup.active_jobs(seen, current - 1))


def older_attempts_only(fence: Fence, other: Fence) -> bool:
    return other.attempt > fence.attempt


def no_change_told(*decided: Any) -> tuple[Event, ...]:
    return tuple(e for e in transition_events(*decided) if e.reason != Reason.EXECUTION_CHANGED)


STORED = (*SECOND_GANG, *named("operate", "delete_job_in_background", "arrive", "operate"))
NOT_STORED = (*SECOND_GANG, *named("delete_job_in_background", "arrive", "operate"))
BOTH_RUN = (*SECOND_GANG, *named("orphan_job", "arrive", "controllers", "kubelets"))
NO_JOB = named("operate", "controllers", "delete_job_in_background", "operate")
AGAIN = (*SECOND_LIFE, *named("controllers", "kubelets", "operate"))


@pytest.mark.parametrize(
    ("place", "name", "dropped", "story", "error"),
    [
        (Observed, "job_of", job_by_number, STORED, "goes on with another one's Job"),
        (cleanup, "remove_late_jobs", earlier_jobs_only, STORED, "is left alone"),
        (cleanup, "is_stray", lambda *_: False, NOT_STORED, "adopted while pods of another one"),
        (Fence, "replaced_by", older_attempts_only, BOTH_RUN, "two gangs can commit"),
        (Observed, "live_pods", (), NO_JOB, "a second gang was created while one lives"),
        (progress, "_counted", lambda attempt, _: attempt, AGAIN, "is not recorded"),
        (planning, "transition_events", no_change_told, AGAIN, "whose end nobody saw is not told"),
    ],
)
def test_a_rule_about_lives_that_is_dropped_is_found(
    monkeypatch: pytest.MonkeyPatch, place: Any, name: str, dropped: Any, story: tuple[Step, ...], error: str
) -> None:
    assert breaks(story) is None
    monkeypatch.setattr(place, name, dropped)
    assert error in (breaks(story) or "")


def test_every_mutant_is_another_program_that_can_be_compiled() -> None:
    made = mutants()
    assert len(made) >= 60
    assert {mutant.kind for mutant in made} == {"guard", "operand", "comparison", "element"}
    assert {mutant.path.parent.name for mutant in made} == {"capacity", "lifetime", "recovery", "plan"}
    for mutant in made:
        assert mutant.source != mutant.path.read_text()
        compile(mutant.source, str(mutant.path), "exec")
